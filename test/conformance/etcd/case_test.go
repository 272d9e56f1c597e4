package etcd

import (
	"context"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// A group of cases, which run one after the other on one server.
type group struct {
	name string
	run  func(t *testing.T, s *server)
}

var groups []group

func add(name string, run func(t *testing.T, s *server)) bool {
	groups = append(groups, group{name, run})
	return true
}

// A step: a request, and what must be answered (server.text).
type step struct {
	request proto.Message
	want    string
}

// table adds a group of steps.
func table(name string, steps ...step) bool {
	return add(name, func(t *testing.T, s *server) { s.steps(t, steps...) })
}

func (s *server) steps(t *testing.T, steps ...step) {
	t.Helper()
	for at, step := range steps {
		if got := s.call(deadline(t), step.request); got != step.want {
			t.Errorf("step %d, %s {%s}\n got: %s\nwant: %s", at, method(step.request), describe(step.request), got, step.want)
		}
	}
}

// The services and what they answer, by the first word of their requests' names.
var unary = map[string]proto.Message{}

func register(path string, request, response proto.Message) {
	unary[method(request)] = response
	paths[method(request)] = path
}

var paths = map[string]string{}

func method(request proto.Message) string {
	return string(request.ProtoReflect().Descriptor().FullName())
}

func init() {
	for service, methods := range map[string]map[string][2]proto.Message{
		"KV": {
			"Range":       {&pb.RangeRequest{}, &pb.RangeResponse{}},
			"Put":         {&pb.PutRequest{}, &pb.PutResponse{}},
			"DeleteRange": {&pb.DeleteRangeRequest{}, &pb.DeleteRangeResponse{}},
			"Txn":         {&pb.TxnRequest{}, &pb.TxnResponse{}},
			"Compact":     {&pb.CompactionRequest{}, &pb.CompactionResponse{}},
		},
		"Lease": {
			"LeaseGrant":      {&pb.LeaseGrantRequest{}, &pb.LeaseGrantResponse{}},
			"LeaseRevoke":     {&pb.LeaseRevokeRequest{}, &pb.LeaseRevokeResponse{}},
			"LeaseTimeToLive": {&pb.LeaseTimeToLiveRequest{}, &pb.LeaseTimeToLiveResponse{}},
			"LeaseLeases":     {&pb.LeaseLeasesRequest{}, &pb.LeaseLeasesResponse{}},
		},
		"Maintenance": {
			"Alarm":      {&pb.AlarmRequest{}, &pb.AlarmResponse{}},
			"Status":     {&pb.StatusRequest{}, &pb.StatusResponse{}},
			"Defragment": {&pb.DefragmentRequest{}, &pb.DefragmentResponse{}},
			"Hash":       {&pb.HashRequest{}, &pb.HashResponse{}},
			"HashKV":     {&pb.HashKVRequest{}, &pb.HashKVResponse{}},
			"MoveLeader": {&pb.MoveLeaderRequest{}, &pb.MoveLeaderResponse{}},
			"Downgrade":  {&pb.DowngradeRequest{}, &pb.DowngradeResponse{}},
		},
		"Cluster": {
			"MemberAdd":     {&pb.MemberAddRequest{}, &pb.MemberAddResponse{}},
			"MemberRemove":  {&pb.MemberRemoveRequest{}, &pb.MemberRemoveResponse{}},
			"MemberUpdate":  {&pb.MemberUpdateRequest{}, &pb.MemberUpdateResponse{}},
			"MemberList":    {&pb.MemberListRequest{}, &pb.MemberListResponse{}},
			"MemberPromote": {&pb.MemberPromoteRequest{}, &pb.MemberPromoteResponse{}},
		},
	} {
		for name, messages := range methods {
			register(fmt.Sprintf("/etcdserverpb.%s/%s", service, name), messages[0], messages[1])
		}
	}
}

// invoke sends a request whose revisions are counted from the case's start.
func (s *server) invoke(ctx context.Context, request proto.Message) (proto.Message, error) {
	response := proto.Clone(unary[method(request)])
	err := s.conn.Invoke(ctx, paths[method(request)], rebased(request, s.base), response)
	return response, err
}

func (s *server) call(ctx context.Context, request proto.Message) string {
	return s.text(s.invoke(ctx, request))
}

// must sends a request that is no part of what a case looks at.
func must[Response proto.Message](t testing.TB, s *server, request proto.Message) Response {
	t.Helper()
	response, err := s.invoke(deadline(t), request)
	if err != nil {
		t.Fatal(err)
	}
	return response.(Response)
}

// stream collects what a RangeStream sends, one line a chunk, and how it ended.
func (s *server) stream(t testing.TB, request *pb.RangeRequest) string {
	t.Helper()
	stream, err := pb.NewKVClient(s.conn).RangeStream(deadline(t), rebased(request, s.base).(*pb.RangeRequest))
	if err != nil {
		t.Fatal(err)
	}
	var chunks []string
	for {
		chunk, err := stream.Recv()
		if err != nil {
			if text := s.text(nil, err); text != "Unknown: EOF" {
				chunks = append(chunks, text)
			}
			return strings.Join(chunks, "\n")
		}
		chunks = append(chunks, s.text(chunk, nil))
	}
}

// Short names for requests.

func get(key string) *pb.RangeRequest { return &pb.RangeRequest{Key: []byte(key)} }

func list(key, end string) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
}

func put(key, value string) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: []byte(value)}
}

func remove(key, end string) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
}

func op(request proto.Message) *pb.RequestOp {
	switch request := request.(type) {
	case *pb.RangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: request}}
	case *pb.PutRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: request}}
	case *pb.DeleteRangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: request}}
	case *pb.TxnRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: request}}
	}
	panic("no operation")
}

func ops(requests ...proto.Message) []*pb.RequestOp {
	var operations []*pb.RequestOp
	for _, request := range requests {
		operations = append(operations, op(request))
	}
	return operations
}

// do is a transaction without a condition.
func do(requests ...proto.Message) *pb.TxnRequest { return &pb.TxnRequest{Success: ops(requests...)} }
