// Messages and methods of the contract, read from a descriptor set, so that no generated class stands between.

import com.google.protobuf.ByteString;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.DescriptorValidationException;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.Descriptors.ServiceDescriptor;
import com.google.protobuf.DynamicMessage;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.MetadataUtils;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

final class Contract {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final Map<String, Descriptor> messages = new HashMap<>();
  private final Map<String, ServiceDescriptor> services = new HashMap<>();

  Contract(File descriptors) throws IOException, DescriptorValidationException {
    Map<String, FileDescriptor> built = new HashMap<>();
    try (InputStream file = new FileInputStream(descriptors)) {
      for (FileDescriptorProto one : FileDescriptorSet.parseFrom(file).getFileList()) { // what it imports came before
        FileDescriptor[] needed = one.getDependencyList().stream().map(built::get).toArray(FileDescriptor[]::new);
        FileDescriptor found = FileDescriptor.buildFrom(one, needed);
        built.put(one.getName(), found);
        found.getMessageTypes().forEach(message -> messages.put(message.getFullName(), message));
        found.getServices().forEach(service -> services.put(service.getFullName(), service));
      }
    }
  }

  DynamicMessage.Builder message(String name) {
    return DynamicMessage.newBuilder(messages.get(name));
  }

  MethodDescriptor<DynamicMessage, DynamicMessage> rpc(String service, String name) {
    com.google.protobuf.Descriptors.MethodDescriptor method = services.get(service).findMethodByName(name);
    return MethodDescriptor.<DynamicMessage, DynamicMessage>newBuilder()
        .setType(method.isClientStreaming() ? MethodType.BIDI_STREAMING : MethodType.UNARY)
        .setFullMethodName(MethodDescriptor.generateFullMethodName(service, name))
        .setRequestMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getInputType())))
        .setResponseMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getOutputType())))
        .build();
  }

  static MethodDescriptor<byte[], byte[]> raw(String name) {
    MethodDescriptor.Marshaller<byte[]> bytes = new MethodDescriptor.Marshaller<>() {
      @Override
      public InputStream stream(byte[] value) {
        return new ByteArrayInputStream(value);
      }

      @Override
      public byte[] parse(InputStream stream) {
        try {
          return stream.readAllBytes();
        } catch (IOException error) {
          throw new UncheckedIOException(error);
        }
      }
    };
    return MethodDescriptor.<byte[], byte[]>newBuilder().setType(MethodType.UNARY).setFullMethodName(name)
        .setRequestMarshaller(bytes).setResponseMarshaller(bytes).build();
  }

  static Channel with(ManagedChannel channel, String token) {
    Metadata sent = new Metadata();
    if (!token.isEmpty()) {
      sent.put(AUTHORIZATION, "Bearer " + token);
    }
    return ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(sent));
  }

  static FieldDescriptor field(Descriptor type, String name) {
    return type.findFieldByName(name);
  }

  static Object get(DynamicMessage message, String name) {
    return message.getField(field(message.getDescriptorForType(), name));
  }

  static ByteString bytes(DynamicMessage message, String name) {
    return (ByteString) get(message, name);
  }

  @SuppressWarnings("unchecked")
  static List<DynamicMessage> messages(DynamicMessage message, String name) {
    return (List<DynamicMessage>) get(message, name);
  }

  static List<String> texts(List<DynamicMessage> messages, String name) {
    return messages.stream().map(one -> (String) get(one, name)).toList();
  }

  static DynamicMessage.Builder set(DynamicMessage.Builder message, String name, Object value) {
    return message.setField(field(message.getDescriptorForType(), name), value);
  }

  static DynamicMessage.Builder add(DynamicMessage.Builder message, String name, Object value) {
    return message.addRepeatedField(field(message.getDescriptorForType(), name), value);
  }

  // An entry of a map field.
  void put(DynamicMessage.Builder message, String name, String key, DynamicMessage value) {
    FieldDescriptor map = field(message.getDescriptorForType(), name);
    DynamicMessage.Builder entry = DynamicMessage.newBuilder(map.getMessageType());
    message.addRepeatedField(map, set(set(entry, "key", key), "value", value).build());
  }
}
