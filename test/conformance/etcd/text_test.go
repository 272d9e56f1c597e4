package etcd

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Fields that hold revisions. In tables they are counted from the revision that a case started at.
var revisionFields = map[protoreflect.Name]bool{
	"revision": true, "start_revision": true, "compact_revision": true,
	"create_revision": true, "mod_revision": true,
	"min_mod_revision": true, "max_mod_revision": true,
	"min_create_revision": true, "max_create_revision": true,
}

// rebased returns a copy of a message whose revisions are moved; 0 and negative ones have meanings of
// their own and stay.
func rebased(message proto.Message, by int64) proto.Message {
	copied := proto.Clone(message)
	move(copied.ProtoReflect(), by)
	return copied
}

func move(message protoreflect.Message, by int64) {
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList() && field.Message() != nil:
			for at := range value.List().Len() {
				move(value.List().Get(at).Message(), by)
			}
		case field.Message() != nil && !field.IsList():
			move(value.Message(), by)
		case revisionFields[field.Name()] && value.Int() > 0:
			message.Set(field, protoreflect.ValueOfInt64(value.Int()+by))
		}
		return true
	})
}

// text renders a response, or an error, in one line: only what is not zero, in the order of the fields.
// "@3" is a header with revision 3, "@" one without; a=1 c2 m3 v2 is a key with its revisions and version.
func (s *server) text(response proto.Message, err error) string {
	if err != nil {
		state := status.Convert(err)
		return fmt.Sprintf("%s: %s", state.Code(), state.Message())
	}
	return renderer{s.base}.message(response.ProtoReflect())
}

// A renderer counts revisions from one of its own.
type renderer struct{ base int64 }

// describe renders a request.
func describe(request proto.Message) string { return renderer{}.message(request.ProtoReflect()) }

func (r renderer) message(message protoreflect.Message) string {
	switch known := message.Interface().(type) {
	case *pb.ResponseHeader:
		if known.Revision == 0 {
			return "@"
		}
		return fmt.Sprintf("@%d", known.Revision-r.base)
	case *mvccpb.KeyValue:
		return r.keyValue(known)
	}
	var parts []string
	fields := message.Descriptor().Fields()
	for at := range fields.Len() {
		field := fields.Get(at)
		if message.Has(field) {
			parts = append(parts, r.field(field, message.Get(field)))
		}
	}
	return strings.Join(parts, " ")
}

func (r renderer) field(field protoreflect.FieldDescriptor, value protoreflect.Value) string {
	name := string(field.Name())
	switch {
	case field.IsList():
		var items []string
		for at := range value.List().Len() {
			items = append(items, r.value(field, value.List().Get(at)))
		}
		return name + "[" + strings.Join(items, ", ") + "]"
	case name == "header":
		return r.value(field, value)
	case field.Kind() == protoreflect.BoolKind:
		return name
	case field.Kind() == protoreflect.MessageKind:
		return name + ":{" + r.value(field, value) + "}"
	case revisionFields[field.Name()]:
		return fmt.Sprintf("%s:%d", name, value.Int()-r.base)
	}
	return name + ":" + r.value(field, value)
}

func (r renderer) value(field protoreflect.FieldDescriptor, value protoreflect.Value) string {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return r.message(value.Message())
	case protoreflect.EnumKind:
		if known := field.Enum().Values().ByNumber(value.Enum()); known != nil {
			return string(known.Name())
		}
		return fmt.Sprint(value.Enum())
	case protoreflect.BytesKind:
		return abridged(value.Bytes())
	default:
		return value.String()
	}
}

func (r renderer) keyValue(kv *mvccpb.KeyValue) string {
	text := fmt.Sprintf("%s=%s", abridged(kv.Key), abridged(kv.Value))
	for _, field := range []struct {
		letter string
		value  int64
	}{{"c", kv.CreateRevision - r.base}, {"m", kv.ModRevision - r.base}, {"v", kv.Version}, {"l", kv.Lease}} {
		if field.value != 0 && field.value != -r.base {
			text += fmt.Sprintf(" %s%d", field.letter, field.value)
		}
	}
	return text
}

// Long values are rendered as their length.
const longBytes = 60

func abridged(value []byte) string {
	if len(value) > longBytes {
		return fmt.Sprintf("(%d bytes)", len(value))
	}
	return string(value)
}
