package etcd

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Rules 27 to 29.
var _ = table("lease",
	step{&pb.LeaseGrantRequest{ID: 5, TTL: 1000}, "@0 ID:5 TTL:1000"},
	step{&pb.LeaseGrantRequest{ID: 5, TTL: 1000}, "FailedPrecondition: etcdserver: lease already exists"},
	step{&pb.LeaseGrantRequest{ID: 6, TTL: 9_000_000_001}, "OutOfRange: etcdserver: too large lease TTL"},
	step{&pb.LeaseGrantRequest{ID: 6, TTL: 9_000_000_000}, "@0 ID:6 TTL:9000000000"},
	step{&pb.LeaseGrantRequest{ID: -3, TTL: 500}, "@0 ID:-3 TTL:500"},
	step{&pb.LeaseLeasesRequest{}, "@0 leases[ID:-3, ID:5, ID:6]"},
	step{&pb.LeaseTimeToLiveRequest{ID: 99}, "@0 ID:99 TTL:-1"},
	step{&pb.LeaseTimeToLiveRequest{ID: 99, Keys: true}, "@0 ID:99 TTL:-1"},
	step{&pb.LeaseRevokeRequest{ID: 99}, leaseNotFound},
	step{&pb.PutRequest{Key: []byte("b"), Value: []byte("1"), Lease: 5}, "@1"},
	step{&pb.PutRequest{Key: []byte("a"), Value: []byte("1"), Lease: 5}, "@2"},
	step{&pb.PutRequest{Key: []byte("c"), Value: []byte("1"), Lease: -3}, "@3"},
	step{&pb.PutRequest{Key: []byte("d"), Value: []byte("1"), Lease: 5}, "@4"},
	step{put("d", "2"), "@5"},
	step{&pb.PutRequest{Key: []byte("c"), Value: []byte("2"), Lease: 5}, "@6"},
	step{list("a", "z"), "@6 kvs[a=1 c2 m2 v1 l5, b=1 c1 m1 v1 l5, c=2 c3 m6 v2 l5, d=2 c4 m5 v2] count:4"},
	step{&pb.LeaseRevokeRequest{ID: -3}, "@6"},
	step{&pb.LeaseRevokeRequest{ID: 5}, "@7"},
	step{list("a", "z"), "@7 kvs[d=2 c4 m5 v2] count:1"},
	step{&pb.LeaseRevokeRequest{ID: 5}, leaseNotFound},
	step{&pb.PutRequest{Key: []byte("a"), Lease: 5}, leaseNotFound},
	step{&pb.LeaseRevokeRequest{ID: 6}, "@7"},
	step{&pb.LeaseLeasesRequest{}, "@7"},
)

// Rule 29: one revision, sorted; a key that was deleted does not come back into it.
var _ = add("lease-revoke-events", func(t *testing.T, s *server) {
	must[*pb.LeaseGrantResponse](t, s, &pb.LeaseGrantRequest{ID: 5, TTL: 1000})
	for _, key := range []string{"c", "a", "b", "x"} {
		must[*pb.PutResponse](t, s, &pb.PutRequest{Key: []byte(key), Value: []byte("1"), Lease: 5})
	}
	must[*pb.DeleteRangeResponse](t, s, remove("x", ""))
	w := s.watch(t).create(watchRange("a", "z", 0)).expect("@5 created")
	s.steps(t, step{&pb.LeaseRevokeRequest{ID: 5}, "@6"})
	w.expect("@6 events[type:DELETE kv:{a= m6}, type:DELETE kv:{b= m6}, type:DELETE kv:{c= m6}]")
})

var _ = add("lease-times", func(t *testing.T, s *server) {
	granted := must[*pb.LeaseGrantResponse](t, s, &pb.LeaseGrantRequest{TTL: 1000})
	if granted.ID <= 0 || granted.TTL != 1000 {
		t.Errorf("a lease of the server's choice: %s", s.text(granted, nil))
	}
	must[*pb.PutResponse](t, s, &pb.PutRequest{Key: []byte("b"), Lease: granted.ID})
	must[*pb.PutResponse](t, s, &pb.PutRequest{Key: []byte("a"), Lease: granted.ID})
	left := must[*pb.LeaseTimeToLiveResponse](t, s, &pb.LeaseTimeToLiveRequest{ID: granted.ID, Keys: true})
	// etcd keeps them in a map.
	slices.SortFunc(left.Keys, bytes.Compare)
	if left.TTL < 900 || left.TTL > 1000 || left.GrantedTTL != 1000 || fmt.Sprintf("%s", left.Keys) != "[a b]" {
		t.Errorf("time to live: %s", s.text(left, nil))
	}
	if left := must[*pb.LeaseTimeToLiveResponse](t, s, &pb.LeaseTimeToLiveRequest{ID: granted.ID}); len(left.Keys) != 0 {
		t.Errorf("keys that were not asked for: %s", left.Keys)
	}
})

// Rule 28: replies in the order of the requests, 0 for a lease that is not known.
var _ = add("lease-keep-alive", func(t *testing.T, s *server) {
	must[*pb.LeaseGrantResponse](t, s, &pb.LeaseGrantRequest{ID: 5, TTL: 1000})
	stream, err := pb.NewLeaseClient(s.conn).LeaseKeepAlive(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	var replies []string
	for _, id := range []int64{5, 99, 5, 0} {
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			t.Fatal(err)
		}
		replies = append(replies, s.text(stream.Recv()))
	}
	stream.CloseSend()
	replies = append(replies, s.text(stream.Recv()))
	const want = "@0 ID:5 TTL:1000, @0 ID:99, @0 ID:5 TTL:1000, @0, Unknown: EOF"
	if got := strings.Join(replies, ", "); got != want {
		t.Errorf("\n got: %s\nwant: %s", got, want)
	}
})

// Rule 27: the shortest lease. A lease that is kept alive lives, one that is not ends with its keys.
func TestLeaseExpiry(t *testing.T) {
	onEach(t, nil, func(t *testing.T, s *server) {
		s.empty(t)
		s.steps(t,
			step{&pb.LeaseGrantRequest{ID: 1, TTL: 1}, "@0 ID:1 TTL:2"},
			step{&pb.LeaseGrantRequest{ID: 2, TTL: -5}, "@0 ID:2 TTL:2"},
			step{&pb.LeaseGrantRequest{ID: 3, TTL: 2}, "@0 ID:3 TTL:2"},
			step{&pb.PutRequest{Key: []byte("b"), Lease: 1}, "@1"},
			step{&pb.PutRequest{Key: []byte("a"), Lease: 1}, "@2"},
			step{&pb.PutRequest{Key: []byte("kept"), Lease: 3}, "@3"},
		)
		stream, err := pb.NewLeaseClient(s.conn).LeaseKeepAlive(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		w := s.watch(t).create(watchRange("a", "z", 0)).expect("@3 created")
		ended := time.Now().Add(4 * time.Second)
		for time.Now().Before(ended) {
			stream.Send(&pb.LeaseKeepAliveRequest{ID: 3})
			if reply, err := stream.Recv(); err != nil || reply.TTL != 2 {
				t.Fatalf("keep-alive: %v %v", reply, err)
			}
			time.Sleep(200 * time.Millisecond)
		}
		w.expect("@4 events[type:DELETE kv:{a= m4}, type:DELETE kv:{b= m4}]")
		s.steps(t,
			step{&pb.LeaseTimeToLiveRequest{ID: 1}, "@4 ID:1 TTL:-1"},
			step{&pb.LeaseLeasesRequest{}, "@4 leases[ID:3]"},
			step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), CountOnly: true}, "@4 count:1"},
		)
		stream.Send(&pb.LeaseKeepAliveRequest{ID: 1})
		if got := s.text(stream.Recv()); got != "@4 ID:1" {
			t.Errorf("keep-alive of what has expired: %s", got)
		}
	})
}
