package etcd

import (
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	compacted = "OutOfRange: etcdserver: mvcc: required revision has been compacted"
	future    = "OutOfRange: etcdserver: mvcc: required revision is a future revision"
)

// Rules 1 and 2: what writes nothing makes no revision; a range's header has the newest one.
var _ = table("revisions",
	step{get("a"), "@0"},
	step{&pb.TxnRequest{}, "@0 succeeded"},
	step{do(get("a")), "@0 succeeded responses[response_range:{@0}]"},
	step{remove("a", ""), "@0"},
	step{remove("a", "\x00"), "@0"},
	step{put("a", "1"), "@1"},
	step{put("a", "1"), "@2"},
	step{put("b", ""), "@3"},
	step{&pb.RangeRequest{Key: []byte("a"), Revision: 1}, "@3 kvs[a=1 c1 m1 v1] count:1"},
	step{&pb.RangeRequest{Key: []byte("b"), Revision: 2}, "@3"},
	step{get("b"), "@3 kvs[b= c3 m3 v1] count:1"},
	step{do(put("c", "1"), put("d", "1"), remove("a", "c")), "@4 succeeded responses[response_put:{@4}, response_put:{@4}, response_delete_range:{@4 deleted:2}]"},
	step{list("a", "z"), "@4 kvs[c=1 c4 m4 v1, d=1 c4 m4 v1] count:2"},
	step{&pb.RangeRequest{Key: []byte("a"), Serializable: true}, "@4"},
)

// Rules 3 to 5: revisions that are gone, to come, or negative.
var _ = table("revision-limits",
	step{put("a", "1"), "@1"},
	step{put("a", "2"), "@2"},
	step{put("a", "3"), "@3"},
	step{&pb.CompactionRequest{Revision: 2}, "@3"},
	step{&pb.RangeRequest{Key: []byte("a"), Revision: 1}, compacted},
	step{&pb.RangeRequest{Key: []byte("a"), Revision: 2}, "@3 kvs[a=2 c1 m2 v2] count:1"},
	step{&pb.RangeRequest{Key: []byte("a"), Revision: 4}, future},
	step{&pb.RangeRequest{Key: []byte("a"), Revision: -1}, "@3 kvs[a=3 c1 m3 v3] count:1"},
	step{do(&pb.RangeRequest{Key: []byte("a"), Revision: -1}), compacted},
	step{do(&pb.RangeRequest{Key: []byte("a"), Revision: 1}), compacted},
	step{do(&pb.RangeRequest{Key: []byte("a"), Revision: 2}), "@3 succeeded responses[response_range:{@3 kvs[a=2 c1 m2 v2] count:1}]"},
	step{do(&pb.RangeRequest{Key: []byte("a"), Revision: 4}), future},
	step{do(put("b", "1"), &pb.RangeRequest{Key: []byte("a"), Revision: 4}), future},
	step{get("b"), "@3"},
)

// Rules 17 and 18, and every other option of a range.
var _ = table("range-options",
	step{put("b", "3"), "@1"},
	step{put("a", "2"), "@2"},
	step{put("c", "1"), "@3"},
	step{put("a", "9"), "@4"},
	step{&pb.LeaseGrantRequest{ID: 7, TTL: 1000}, "@4 ID:7 TTL:1000"},
	step{&pb.PutRequest{Key: []byte("c"), Value: []byte("5"), Lease: 7}, "@5"},
	step{list("a", "c"), "@5 kvs[a=9 c2 m4 v2, b=3 c1 m1 v1] count:2"},
	step{list("b", "\x00"), "@5 kvs[b=3 c1 m1 v1, c=5 c3 m5 v2 l7] count:2"},
	step{list("\x00", "\x00"), "@5 kvs[a=9 c2 m4 v2, b=3 c1 m1 v1, c=5 c3 m5 v2 l7] count:3"},
	step{list("c", "a"), "@5"},
	step{list("a", "a"), "@5"},
	step{list("", "z"), "InvalidArgument: etcdserver: key is not provided"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), Limit: 2}, "@5 kvs[a=9 c2 m4 v2, b=3 c1 m1 v1] more count:3"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), Limit: 3}, "@5 kvs[a=9 c2 m4 v2, b=3 c1 m1 v1, c=5 c3 m5 v2 l7] count:3"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), Limit: -1}, "@5 kvs[a=9 c2 m4 v2, b=3 c1 m1 v1, c=5 c3 m5 v2 l7] count:3"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), Limit: 1, Revision: 2}, "@5 kvs[a=2 c2 m2 v1] more count:2"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), CountOnly: true, Limit: 1}, "@5 count:3"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), CountOnly: true, Revision: 1}, "@5 count:1"},
	step{&pb.RangeRequest{Key: []byte("a"), CountOnly: true}, "@5 count:1"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), KeysOnly: true}, "@5 kvs[a= c2 m4 v2, b= c1 m1 v1, c= c3 m5 v2] count:3"},
	step{do(&pb.RangeRequest{Key: []byte("c"), KeysOnly: true}), "@5 succeeded responses[response_range:{@5 kvs[c= c3 m5 v2] count:1}]"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), MinModRevision: 2}, "@5 kvs[a=9 c2 m4 v2, c=5 c3 m5 v2 l7] count:3"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), MaxModRevision: 4}, "@5 kvs[a=9 c2 m4 v2, b=3 c1 m1 v1] count:3"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), MinCreateRevision: 2, MaxCreateRevision: 2}, "@5 kvs[a=9 c2 m4 v2] count:3"},
	step{&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), MinModRevision: 4, Limit: 1}, "@5 kvs[a=9 c2 m4 v2] more count:3"},
	step{&pb.RangeRequest{Key: []byte("a"), MinModRevision: 9}, "@5 count:1"},
)

func sorted(target pb.RangeRequest_SortTarget, order pb.RangeRequest_SortOrder, limit int64) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), SortTarget: target, SortOrder: order, Limit: limit, KeysOnly: true}
}

var _ = table("sort",
	step{put("b", "3"), "@1"},
	step{put("a", "2"), "@2"},
	step{put("c", "1"), "@3"},
	step{put("a", "9"), "@4"},
	step{sorted(pb.RangeRequest_KEY, pb.RangeRequest_ASCEND, 2), "@4 kvs[a= c2 m4 v2, b= c1 m1 v1] more count:3"},
	step{sorted(pb.RangeRequest_KEY, pb.RangeRequest_DESCEND, 2), "@4 kvs[c= c3 m3 v1, b= c1 m1 v1] more count:3"},
	step{sorted(pb.RangeRequest_VERSION, pb.RangeRequest_DESCEND, 1), "@4 kvs[a= c2 m4 v2] more count:3"},
	step{sorted(pb.RangeRequest_CREATE, pb.RangeRequest_ASCEND, 0), "@4 kvs[b= c1 m1 v1, a= c2 m4 v2, c= c3 m3 v1] count:3"},
	step{sorted(pb.RangeRequest_MOD, pb.RangeRequest_ASCEND, 0), "@4 kvs[b= c1 m1 v1, c= c3 m3 v1, a= c2 m4 v2] count:3"},
	step{sorted(pb.RangeRequest_MOD, pb.RangeRequest_DESCEND, 2), "@4 kvs[a= c2 m4 v2, c= c3 m3 v1] more count:3"},
	step{sorted(pb.RangeRequest_VALUE, pb.RangeRequest_ASCEND, 0), "@4 kvs[c= c3 m3 v1, b= c1 m1 v1, a= c2 m4 v2] count:3"},
	step{sorted(pb.RangeRequest_VALUE, pb.RangeRequest_NONE, 0), "@4 kvs[c= c3 m3 v1, b= c1 m1 v1, a= c2 m4 v2] count:3"},
	step{sorted(pb.RangeRequest_MOD, pb.RangeRequest_NONE, 2), "@4 kvs[b= c1 m1 v1, c= c3 m3 v1] more count:3"},
	step{sorted(pb.RangeRequest_KEY, 3, 0), "InvalidArgument: etcdserver: invalid sort option"},
	step{sorted(5, 0, 0), "InvalidArgument: etcdserver: invalid sort option"},
	step{sorted(pb.RangeRequest_KEY, -1, 0), "InvalidArgument: etcdserver: invalid sort option"},
)

// Keys are bytes: every one of them, in their order.
var _ = add("binary-keys", func(t *testing.T, s *server) {
	keys := []string{"\x00", "\x00\x00", "\x01", "\x7f", "\x80", "\xc3\xa9", "\xff", "\xff\xff"}
	for at, key := range keys {
		s.steps(t, step{put(key, "é\x00\xff"), fmt.Sprintf("@%d", at+1)})
	}
	found := must[*pb.RangeResponse](t, s, list("\x00", "\x00"))
	if int(found.Count) != len(keys) {
		t.Fatalf("%d of %d keys", found.Count, len(keys))
	}
	for at, kv := range found.Kvs {
		if string(kv.Key) != keys[at] || string(kv.Value) != "é\x00\xff" {
			t.Errorf("key %d is %q=%q", at, kv.Key, kv.Value)
		}
	}
	s.steps(t,
		step{&pb.RangeRequest{Key: []byte("\x80"), RangeEnd: []byte("\xff"), CountOnly: true}, "@8 count:2"},
		step{&pb.RangeRequest{Key: []byte("\xff"), RangeEnd: []byte("\x00"), CountOnly: true}, "@8 count:2"},
		step{remove("\x01", "\x80"), "@9 deleted:2"},
	)
})

// RangeStream: chunks from 10 keys up; header, more and count on the last one.
var _ = add("range-stream", func(t *testing.T, s *server) {
	s.expectStream(t, list("a", "z"), "range_response:{@0}")
	for at := range 35 {
		must[*pb.PutResponse](t, s, put(fmt.Sprintf("k%02d", at), "v"))
	}
	s.expectStream(t, list("k00", "k03"),
		"range_response:{@35 kvs[k00=v c1 m1 v1, k01=v c2 m2 v1, k02=v c3 m3 v1] count:3}")
	s.expectStream(t, get("k34"), "range_response:{@35 kvs[k34=v c35 m35 v1] count:1}")
	s.expectStream(t, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: 1, Revision: 4},
		"range_response:{@35 kvs[k00=v c1 m1 v1] more count:4}")
	s.expectStream(t, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), CountOnly: true}, "range_response:{@35 count:35}")
	s.expectStream(t, &pb.RangeRequest{Key: []byte("k00"), RangeEnd: []byte("k02"), KeysOnly: true},
		"range_response:{@35 kvs[k00= c1 m1 v1, k01= c2 m2 v1] count:2}")
	s.expectStream(t, list("", "z"), "InvalidArgument: etcdserver: key is not provided")
	s.expectStream(t, &pb.RangeRequest{Key: []byte("k"), Revision: 99}, future)
	s.expectStream(t, sorted(pb.RangeRequest_MOD, pb.RangeRequest_ASCEND, 0), "Unimplemented: RangeStream does not support custom sort orders")
	s.expectStream(t, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), MinModRevision: 1}, "Unimplemented: RangeStream does not support revision filters")
	must[*pb.CompactionResponse](t, s, &pb.CompactionRequest{Revision: 35})
	s.expectStream(t, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Revision: 34}, compacted)

	chunks := strings.Split(s.stream(t, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), KeysOnly: true, Limit: 33}), "\n")
	var sizes []int
	for at, chunk := range chunks {
		sizes = append(sizes, strings.Count(chunk, "= c"))
		isLast := strings.Contains(chunk, "@35") && strings.HasSuffix(chunk, "more count:35}")
		if isLast != (at == len(chunks)-1) {
			t.Errorf("chunk %d of %d: %s", at, len(chunks), chunk)
		}
	}
	if fmt.Sprint(sizes) != "[10 20 3]" {
		t.Errorf("chunks of %v keys", sizes)
	}
})

func (s *server) expectStream(t *testing.T, request *pb.RangeRequest, want string) {
	t.Helper()
	if got := s.stream(t, request); got != want {
		t.Errorf("stream {%s}\n got: %s\nwant: %s", describe(request), got, want)
	}
}
