package etcd

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	keyMissing    = "InvalidArgument: etcdserver: key is not provided"
	keyNotFound   = "InvalidArgument: etcdserver: key not found"
	leaseNotFound = "NotFound: etcdserver: requested lease not found"
)

// Rules 13, 15 and 19: puts and deletes with every option.
var _ = table("put",
	step{put("", "1"), keyMissing},
	step{&pb.PutRequest{Key: []byte("a"), Value: []byte("1"), PrevKv: true}, "@1"},
	step{&pb.PutRequest{Key: []byte("a"), Value: []byte("2"), PrevKv: true}, "@2 prev_kv:{a=1 c1 m1 v1}"},
	step{&pb.PutRequest{Key: []byte("a"), Value: []byte("2"), Lease: 99}, leaseNotFound},
	step{&pb.PutRequest{Key: []byte("a"), Value: []byte("2"), IgnoreValue: true}, "InvalidArgument: etcdserver: value is provided"},
	step{&pb.PutRequest{Key: []byte("a"), Lease: 99, IgnoreLease: true}, "InvalidArgument: etcdserver: lease is provided"},
	step{&pb.PutRequest{Key: []byte("b"), IgnoreValue: true}, keyNotFound},
	step{&pb.PutRequest{Key: []byte("b"), IgnoreLease: true}, keyNotFound},
	step{do(&pb.PutRequest{Key: []byte("b"), IgnoreLease: true}), keyNotFound},
	step{&pb.LeaseGrantRequest{ID: 7, TTL: 1000}, "@2 ID:7 TTL:1000"},
	step{&pb.PutRequest{Key: []byte("a"), Lease: 7, IgnoreValue: true}, "@3"},
	step{get("a"), "@3 kvs[a=2 c1 m3 v3 l7] count:1"},
	step{&pb.PutRequest{Key: []byte("a"), Value: []byte("4"), IgnoreLease: true, PrevKv: true}, "@4 prev_kv:{a=2 c1 m3 v3 l7}"},
	step{get("a"), "@4 kvs[a=4 c1 m4 v4 l7] count:1"},
	step{put("a", "5"), "@5"},
	step{get("a"), "@5 kvs[a=5 c1 m5 v5] count:1"},
)

var _ = table("delete",
	step{remove("", ""), keyMissing},
	step{put("a", "1"), "@1"},
	step{put("b", "1"), "@2"},
	step{put("c", "1"), "@3"},
	step{&pb.DeleteRangeRequest{Key: []byte("a"), PrevKv: true}, "@4 deleted:1 prev_kvs[a=1 c1 m1 v1]"},
	step{remove("a", ""), "@4"},
	step{&pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte("\x00"), PrevKv: true}, "@5 deleted:2 prev_kvs[b=1 c2 m2 v1, c=1 c3 m3 v1]"},
	step{put("a", "2"), "@6"},
	step{get("a"), "@6 kvs[a=2 c6 m6 v1] count:1"},
	step{remove("b", "a"), "@6"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), Revision: 4}, "@6 kvs[b=1 c2 m2 v1, c=1 c3 m3 v1] count:2"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), Revision: 5, Limit: 1}, "@6"},
)

// Rules 3, 6 and 7.
var _ = table("compact",
	step{put("a", "1"), "@1"},
	step{put("a", "2"), "@2"},
	step{put("b", "1"), "@3"},
	step{remove("b", ""), "@4 deleted:1"},
	step{put("a", "3"), "@5"},
	step{&pb.CompactionRequest{Revision: 6}, future},
	step{&pb.CompactionRequest{Revision: 4, Physical: true}, "@5"},
	step{&pb.CompactionRequest{Revision: 4}, compacted},
	step{&pb.CompactionRequest{Revision: 3}, compacted},
	step{&pb.CompactionRequest{Revision: 0}, compacted},
	step{&pb.CompactionRequest{Revision: -1}, compacted},
	step{&pb.RangeRequest{Key: []byte("a"), Revision: 3}, compacted},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), Revision: 4}, "@5 kvs[a=2 c1 m2 v2] count:1"},
	step{put("b", "2"), "@6"},
	step{get("b"), "@6 kvs[b=2 c6 m6 v1] count:1"},
	step{&pb.CompactionRequest{Revision: 6}, "@6"},
	step{list("a", "z"), "@6 kvs[a=3 c1 m5 v3, b=2 c6 m6 v1] count:2"},
)

func TestFreshStore(t *testing.T) {
	onEach(t, nil, func(t *testing.T, s *server) {
		s.steps(t,
			step{get("a"), "@1"},
			step{&pb.TxnRequest{}, "@1 succeeded"},
			step{remove("a", ""), "@1"},
			step{&pb.CompactionRequest{Revision: 2}, future},
			step{&pb.CompactionRequest{Revision: 0}, "@1"},
			step{&pb.CompactionRequest{Revision: 0}, compacted},
			step{&pb.CompactionRequest{Revision: 1, Physical: true}, "@1"},
			step{put("a", "1"), "@2"},
			step{get("a"), "@2 kvs[a=1 c2 m2 v1] count:1"},
		)
	})
}
