package main

import (
	"encoding/json"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Messages of the contract, read from a descriptor set, so that no generated code stands between.
type contract struct{ files *protoregistry.Files }

// Fields of a message as JSON has them.
type fields map[string]any

func readContract(path string) (*contract, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil {
		return nil, err
	}
	files, err := protodesc.NewFiles(set)
	return &contract{files}, err
}

func (c *contract) message(name string, held fields) *dynamicpb.Message {
	found, err := c.files.FindDescriptorByName(protoreflect.FullName("headrace.feature.v1." + name))
	must(err)
	out := dynamicpb.NewMessage(found.(protoreflect.MessageDescriptor))
	text, err := json.Marshal(held)
	must(err)
	must(protojson.Unmarshal(text, out))
	return out
}

func get(message protoreflect.Message, name string) protoreflect.Value {
	return message.Get(message.Descriptor().Fields().ByName(protoreflect.Name(name)))
}

func texts(message protoreflect.Message, list, name string) []string {
	out := []string{}
	for _, one := range messages(message, list) {
		out = append(out, get(one, name).String())
	}
	return out
}

func messages(message protoreflect.Message, name string) []protoreflect.Message {
	list, out := get(message, name).List(), []protoreflect.Message{}
	for at := 0; at < list.Len(); at++ {
		out = append(out, list.Get(at).Message())
	}
	return out
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
