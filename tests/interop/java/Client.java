// Calls a feature server as a client of Java would, and prints what it saw as one JSON object.
// java Client CONFIG.json runs the cases that tests/interop/cases.py expects; java Client CONFIG.json drain says "ready"
// once it is answered, reads on until the server is gone, and prints how its calls ended.

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import com.google.protobuf.ByteString;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import io.grpc.CallOptions;
import io.grpc.ChannelCredentials;
import io.grpc.ClientCall;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.io.File;
import java.io.FileReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import java.util.stream.LongStream;

public final class Client {
  static final long LIMIT_MS = 20_000;
  static final String ONLINE = "headrace.feature.v1.OnlineFeatureService";
  static final String HEALTH = "grpc.health.v1.Health";

  final JsonObject config;
  final Contract contract;
  final ManagedChannel channel;

  interface Case {
    Object run() throws Exception;
  }

  Client(JsonObject config) throws Exception {
    this.config = config;
    contract = new Contract(new File(text("descriptors")));
    ChannelCredentials credentials = InsecureChannelCredentials.create();
    if (!text("authority").isEmpty()) {
      credentials = TlsChannelCredentials.newBuilder().trustManager(new File(text("authority"))).build();
    }
    channel = Grpc.newChannelBuilder(text("address"), credentials).build();
  }

  public static void main(String[] arguments) throws Exception {
    JsonObject config;
    try (FileReader file = new FileReader(arguments[0])) {
      config = new Gson().fromJson(file, JsonObject.class);
    }
    Client client = new Client(config);
    Map<String, ?> seen = arguments.length > 1 ? client.drain() : client.seen();
    client.channel.shutdownNow().awaitTermination(LIMIT_MS, TimeUnit.MILLISECONDS);
    System.out.println(new GsonBuilder().disableHtmlEscaping().create().toJson(seen));
    System.exit(0);
  }

  Map<String, Object> seen() {
    Map<String, Object> out = new LinkedHashMap<>();
    for (Map.Entry<String, Case> one : cases().entrySet()) {
      try {
        out.put(one.getKey(), one.getValue().run());
      } catch (Exception error) {
        out.put(one.getKey(), Map.of("thrown", error.toString()));
      }
    }
    return out;
  }

  // Eight readers at a time, each until a call of its own fails.
  Map<String, Integer> drain() throws Exception {
    Map<String, Integer> ends = new ConcurrentHashMap<>();
    isAlive();
    System.out.println("ready");
    List<Thread> readers = new ArrayList<>();
    for (int number = 0; number < 8; number++) {
      Thread reader = new Thread(() -> {
        Object code = "OK";
        while (code.equals("OK")) {
          code = code(attempt(() -> answer(read(service(text("service")), 1))));
          ends.merge((String) code, 1, Integer::sum);
        }
      });
      reader.start();
      readers.add(reader);
    }
    for (Thread reader : readers) {
      reader.join(LIMIT_MS);
    }
    return ends;
  }

  Map<String, Case> cases() {
    Map<String, Case> out = new LinkedHashMap<>();
    out.put("prepare", this::prepare);
    out.put("read", () -> summary(answer(read(service(text("service")), 1, 2, 100_000))));
    out.put("read_by_handle", this::readByHandle);
    out.put("large", this::large);
    out.put("errors", () -> List.of(
        outcome("GetOnlineFeatures", message("GetOnlineFeaturesRequest").build(), "reader"),
        outcome("GetOnlineFeatures", read(service("shop.web.none"), 1), "reader"),
        outcome("PrepareFeatureSet", preparation("shop.web.none"), "reader")));
    out.put("unimplemented", this::unimplemented);
    out.put("tokens", this::tokens);
    out.put("deadline", this::deadline);
    out.put("gzip", this::gzip);
    out.put("cancel", this::cancel);
    out.put("concurrent", this::concurrent);
    out.put("ingest", this::ingest);
    out.put("health", this::health);
    return out;
  }

  Object prepare() {
    DynamicMessage found = unary(ONLINE, "PrepareFeatureSet", preparation(text("service")), "reader", soon());
    Map<String, Object> out = new LinkedHashMap<>();
    out.put("handle_bytes", Contract.bytes(found, "handle").size());
    out.put("columns", Contract.texts(Contract.messages(found, "columns"), "name"));
    out.put("join_keys", Contract.texts(Contract.messages(found, "join_keys"), "name"));
    out.put("feature_service", Contract.get(found, "feature_service"));
    return out;
  }

  Object readByHandle() {
    DynamicMessage prepared = unary(ONLINE, "PrepareFeatureSet", preparation(text("service")), "reader", soon());
    DynamicMessage.Builder request = message("GetOnlineFeaturesRequest");
    Contract.set(request, "handle", Contract.bytes(prepared, "handle"));
    Contract.set(request, "options", Contract.set(message("ReadOptions"), "include_names", true).build());
    return summary(answer(read(request, 1, 2, 100_000)));
  }

  Object large() {
    long[] keys = LongStream.range(0, 10_000).map(number -> number % 200).toArray();
    DynamicMessage found = answer(read(service(text("service")), keys));
    long sum = ages(found).stream().mapToLong(Integer::longValue).sum();
    return Map.of("rows", Contract.get(found, "row_count"), "age_sum", sum);
  }

  Object unimplemented() {
    io.grpc.MethodDescriptor<byte[], byte[]> nothing = Contract.raw(ONLINE + "/Nothing");
    try {
      ClientCalls.blockingUnaryCall(Contract.with(channel, text("reader")), nothing, soon(), new byte[0]);
      return "OK";
    } catch (StatusRuntimeException error) {
      return error.getStatus().getCode().name();
    }
  }

  Object tokens() {
    DynamicMessage request = read(service(text("service")), 1);
    List<Object> out = new ArrayList<>();
    for (String token : List.of("", "stranger", text("writer"))) {
      out.add(attempt(() -> call(ONLINE, "GetOnlineFeatures", request, token, soon())));
    }
    out.add(outcome("WriteFeatures", write(1, 1), "reader"));
    return out;
  }

  Object deadline() throws Exception {
    Map<String, Object> held = stream(List.of(write(500, 41)), within(500), false);
    Object passed = code(attempt(() -> call(ONLINE, "GetOnlineFeatures", read(service(text("service")), 1),
        text("reader"), within(-1))));
    Map<String, Object> out = new LinkedHashMap<>();
    out.put("held", held.get("code"));
    out.put("counts", held.get("counts"));
    out.put("passed", passed);
    out.put("alive", isAlive());
    return out;
  }

  Object gzip() {
    DynamicMessage request = read(service(text("service")), LongStream.range(0, 200).toArray());
    CallOptions compressed = soon().withCompression("gzip");
    return Contract.get(unary(ONLINE, "GetOnlineFeatures", request, "reader", compressed), "row_count");
  }

  Object cancel() throws Exception {
    List<Future<DynamicMessage>> calls = new ArrayList<>();
    TreeSet<String> codes = new TreeSet<>();
    for (int number = 0; number < 50; number++) {
      ClientCall<DynamicMessage, DynamicMessage> call = Contract.with(channel, text("reader"))
          .newCall(contract.rpc(ONLINE, "GetOnlineFeatures"), soon());
      calls.add(ClientCalls.futureUnaryCall(call, read(service(text("service")), 1)));
      call.cancel("changed its mind", null);
    }
    for (Future<DynamicMessage> call : calls) {
      try {
        call.get(LIMIT_MS, TimeUnit.MILLISECONDS);
        codes.add("OK");
      } catch (ExecutionException error) {
        codes.add(Status.fromThrowable(error).getCode().name());
      }
    }
    return Map.of("codes", codes, "alive", isAlive());
  }

  Object concurrent() throws Exception {
    List<Future<DynamicMessage>> calls = new ArrayList<>();
    for (int number = 0; number < 100; number++) {
      ClientCall<DynamicMessage, DynamicMessage> call = Contract.with(channel, text("reader"))
          .newCall(contract.rpc(ONLINE, "GetOnlineFeatures"), soon());
      calls.add(ClientCalls.futureUnaryCall(call, read(service(text("service")), number)));
    }
    int right = 0;
    for (int number = 0; number < calls.size(); number++) {
      DynamicMessage found = calls.get(number).get(LIMIT_MS, TimeUnit.MILLISECONDS);
      right += names(found).equals(List.of("user " + number)) ? 1 : 0;
    }
    return right;
  }

  Object ingest() throws Exception {
    Map<String, Object> told = stream(List.of(write(501, 42), write(502, 43), write(503, 44)), soon(), true);
    told.put("ages", ages(answer(read(service(text("service")), 501, 502, 503))));
    return told;
  }

  Object health() {
    DynamicMessage.Builder known = contract.message("grpc.health.v1.HealthCheckRequest");
    DynamicMessage unknown = Contract.set(contract.message("grpc.health.v1.HealthCheckRequest"), "service", "nobody")
        .build();
    DynamicMessage found = call(HEALTH, "Check", known.build(), "", soon());
    return List.of(Contract.get(found, "status").toString(),
        code(attempt(() -> call(HEALTH, "Check", unknown, "", soon()))));
  }

  // The answers of a stream of writes, and what it ended in.
  Map<String, Object> stream(List<DynamicMessage> writes, CallOptions options, boolean endsItself) throws Exception {
    List<Object> counts = new ArrayList<>();
    Map<String, Object> out = new LinkedHashMap<>();
    CountDownLatch done = new CountDownLatch(1);
    StreamObserver<DynamicMessage> requests = ClientCalls.asyncBidiStreamingCall(
        Contract.with(channel, text("writer")).newCall(contract.rpc(ONLINE, "IngestFeatures"), options),
        new StreamObserver<>() {
          @Override
          public void onNext(DynamicMessage answer) {
            counts.add(Contract.get((DynamicMessage) Contract.get(answer, "write"), "row_count"));
          }

          @Override
          public void onError(Throwable error) {
            out.put("code", Status.fromThrowable(error).getCode().name());
            done.countDown();
          }

          @Override
          public void onCompleted() {
            out.put("code", "OK");
            done.countDown();
          }
        });
    for (DynamicMessage one : writes) {
      requests.onNext(Contract.set(message("IngestFeaturesRequest"), "write", one).build());
    }
    if (endsItself) {
      requests.onCompleted();
    }
    done.await(LIMIT_MS, TimeUnit.MILLISECONDS);
    out.put("counts", counts);
    return out;
  }

  DynamicMessage write(long key, long age) {
    DynamicMessage.Builder row = message("FeatureRow");
    Contract.add(row, "entity_keys", value("int_value", key));
    Contract.set(row, "event_time", Contract.set(contract.message("google.protobuf.Timestamp"), "seconds",
        config.get("now_s").getAsLong()).build());
    contract.put(row, "values", "age", value("int_value", age));
    contract.put(row, "values", "name", value("string_value", "written " + key));
    DynamicMessage.Builder out = message("WriteFeaturesRequest");
    Contract.set(out, "feature_view", text("view"));
    return Contract.add(out, "rows", row.build()).build();
  }

  DynamicMessage value(String kind, Object held) {
    return Contract.set(contract.message("headrace.common.v1.Value"), kind, held).build();
  }

  boolean isAlive() {
    return Contract.get(answer(read(service(text("service")), 1)), "row_count").equals(1L);
  }

  DynamicMessage answer(DynamicMessage request) {
    return unary(ONLINE, "GetOnlineFeatures", request, "reader", soon());
  }

  Object outcome(String method, DynamicMessage request, String who) {
    return attempt(() -> unary(ONLINE, method, request, who, soon()));
  }

  DynamicMessage unary(String service, String method, DynamicMessage request, String who, CallOptions options) {
    return call(service, method, request, text(who), options);
  }

  DynamicMessage call(String service, String method, DynamicMessage request, String token, CallOptions options) {
    return ClientCalls.blockingUnaryCall(Contract.with(channel, token), contract.rpc(service, method), options, request);
  }

  // "OK", or the error as {code, reason, domain}.
  static Object attempt(Case call) {
    try {
      call.run();
      return "OK";
    } catch (StatusRuntimeException error) {
      return failure(error);
    } catch (Exception error) {
      return Map.of("thrown", error.toString());
    }
  }

  static Map<String, Object> failure(StatusRuntimeException error) {
    Map<String, Object> out = new LinkedHashMap<>();
    out.put("code", error.getStatus().getCode().name());
    com.google.rpc.Status status = StatusProto.fromThrowable(error);
    for (com.google.protobuf.Any detail : status == null ? List.<com.google.protobuf.Any>of() : status.getDetailsList()) {
      try {
        if (detail.is(ErrorInfo.class)) {
          out.put("reason", detail.unpack(ErrorInfo.class).getReason());
          out.put("domain", detail.unpack(ErrorInfo.class).getDomain());
        }
      } catch (InvalidProtocolBufferException damaged) {
        out.put("reason", damaged.toString());
      }
    }
    return out;
  }

  static Object code(Object outcome) {
    return outcome instanceof Map ? ((Map<?, ?>) outcome).get("code") : outcome;
  }

  DynamicMessage preparation(String service) {
    return Contract.set(message("PrepareFeatureSetRequest"), "feature_service", service).build();
  }

  DynamicMessage.Builder service(String name) {
    return Contract.set(message("GetOnlineFeaturesRequest"), "feature_service", name);
  }

  DynamicMessage read(DynamicMessage.Builder selection, long... keys) {
    DynamicMessage.Builder column = Contract.set(message("EntityColumn"), "join_key", "user_id");
    for (long key : keys) {
      Contract.add(column, "int64_values", key);
    }
    return Contract.add(selection, "entity_columns", column.build()).build();
  }

  static Object summary(DynamicMessage answer) {
    TreeSet<String> statuses = new TreeSet<>();
    for (DynamicMessage column : Contract.messages(answer, "columns")) {
      StringBuilder hex = new StringBuilder();
      Contract.bytes(column, "statuses").forEach(one -> hex.append(String.format("%02x", one)));
      statuses.add(hex.toString());
    }
    Map<String, Object> out = new LinkedHashMap<>();
    out.put("rows", Contract.get(answer, "row_count"));
    out.put("statuses", statuses);
    out.put("ages", ages(answer));
    out.put("names", names(answer));
    return out;
  }

  static DynamicMessage column(DynamicMessage answer, String name) {
    return Contract.messages(answer, "columns").stream()
        .filter(column -> Contract.get(column, "name").equals(name)).findFirst().orElseThrow();
  }

  static List<Integer> ages(DynamicMessage answer) {
    ByteBuffer values = little(Contract.bytes(column(answer, "age"), "values"));
    return IntStream.range(0, values.limit() / 4).mapToObj(row -> values.getInt(row * 4)).toList();
  }

  static List<String> names(DynamicMessage answer) {
    ByteString values = Contract.bytes(column(answer, "name"), "values");
    ByteBuffer offsets = little(Contract.bytes(column(answer, "name"), "offsets"));
    return IntStream.range(0, offsets.limit() / 4 - 1)
        .mapToObj(row -> values.substring(offsets.getInt(row * 4), offsets.getInt(row * 4 + 4)).toStringUtf8())
        .toList();
  }

  static ByteBuffer little(ByteString bytes) {
    return bytes.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
  }

  static CallOptions soon() {
    return within(LIMIT_MS);
  }

  static CallOptions within(long limitMs) {
    return CallOptions.DEFAULT.withDeadlineAfter(limitMs, TimeUnit.MILLISECONDS);
  }

  DynamicMessage.Builder message(String name) {
    return contract.message("headrace.feature.v1." + name);
  }

  String text(String name) {
    return config.get(name).getAsString();
  }
}
