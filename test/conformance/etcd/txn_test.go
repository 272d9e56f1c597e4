package etcd

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const duplicate = "InvalidArgument: etcdserver: duplicate key given in txn request"

// compare compares a target of a key, or of a range, with a value of the target's type.
func compare(key, end string, result pb.Compare_CompareResult, target pb.Compare_CompareTarget, value any) *pb.Compare {
	c := &pb.Compare{Key: []byte(key), RangeEnd: []byte(end), Result: result, Target: target}
	switch target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: int64(value.(int))}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: int64(value.(int))}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: int64(value.(int))}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: []byte(value.(string))}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: int64(value.(int))}
	}
	return c
}

func when(compares ...*pb.Compare) *pb.TxnRequest { return &pb.TxnRequest{Compare: compares} }

// What kube-apiserver sends.
var _ = table("txn-of-the-apiserver",
	step{&pb.TxnRequest{Compare: []*pb.Compare{compare("a", "", pb.Compare_EQUAL, pb.Compare_MOD, 0)}, Success: ops(put("a", "1"))}, "@1 succeeded responses[response_put:{@1}]"},
	step{&pb.TxnRequest{Compare: []*pb.Compare{compare("a", "", pb.Compare_EQUAL, pb.Compare_MOD, 0)}, Success: ops(put("a", "1"))}, "@1"},
	step{&pb.TxnRequest{Compare: []*pb.Compare{compare("a", "", pb.Compare_EQUAL, pb.Compare_MOD, 1)}, Success: ops(put("a", "2")), Failure: ops(get("a"))}, "@2 succeeded responses[response_put:{@2}]"},
	step{&pb.TxnRequest{Compare: []*pb.Compare{compare("a", "", pb.Compare_EQUAL, pb.Compare_MOD, 1)}, Success: ops(put("a", "2")), Failure: ops(get("a"))}, "@2 responses[response_range:{@2 kvs[a=2 c1 m2 v2] count:1}]"},
	step{&pb.TxnRequest{Compare: []*pb.Compare{compare("a", "", pb.Compare_EQUAL, pb.Compare_MOD, 2)}, Success: ops(remove("a", "")), Failure: ops(get("a"))}, "@3 succeeded responses[response_delete_range:{@3 deleted:1}]"},
	step{&pb.TxnRequest{Compare: []*pb.Compare{compare("a", "", pb.Compare_EQUAL, pb.Compare_MOD, 2)}, Success: ops(remove("a", "")), Failure: ops(get("a"))}, "@3 responses[response_range:{@3}]"},
	step{&pb.TxnRequest{Compare: []*pb.Compare{compare("compact_rev_key", "", pb.Compare_EQUAL, pb.Compare_VERSION, 0)}, Success: ops(put("compact_rev_key", "3")), Failure: ops(get("compact_rev_key"))}, "@4 succeeded responses[response_put:{@4}]"},
	step{&pb.TxnRequest{Compare: []*pb.Compare{compare("compact_rev_key", "", pb.Compare_EQUAL, pb.Compare_VERSION, 1)}, Success: ops(put("compact_rev_key", "4")), Failure: ops(get("compact_rev_key"))}, "@5 succeeded responses[response_put:{@5}]"},
)

// Rules 9 and 14.
var _ = table("txn-duplicates",
	step{do(put("a", "1"), put("a", "2")), duplicate},
	step{do(put("a", "1"), remove("a", "")), duplicate},
	step{do(remove("a", "c"), put("b", "1")), duplicate},
	step{do(remove("a", "b"), put("b", "1")), "@1 succeeded responses[response_delete_range:{@0}, response_put:{@1}]"},
	step{do(remove("b", "\x00"), put("b", "1")), "@2 succeeded responses[response_delete_range:{@2 deleted:1}, response_put:{@2}]"},
	step{do(remove("b", ""), remove("b", "")), "@3 succeeded responses[response_delete_range:{@3 deleted:1}, response_delete_range:{@3}]"},
	step{do(remove("a", "z"), remove("b", "c")), "@3 succeeded responses[response_delete_range:{@3}, response_delete_range:{@3}]"},
	step{&pb.TxnRequest{Success: ops(put("a", "1")), Failure: ops(put("a", "2"))}, "@4 succeeded responses[response_put:{@4}]"},
	step{do(put("a", "1"), do(put("a", "2"))), duplicate},
	step{do(do(put("a", "2")), do(put("a", "3"))), duplicate},
	step{do(&pb.TxnRequest{Success: ops(put("a", "1")), Failure: ops(put("a", "2"))}), "@5 succeeded responses[response_txn:{@ succeeded responses[response_put:{@5}]}]"},
	step{do(do(remove("a", "")), put("a", "2")), duplicate},
	step{do(&pb.TxnRequest{Success: ops(put("a", "1")), Failure: ops(remove("a", ""))}), "@6 succeeded responses[response_txn:{@ succeeded responses[response_put:{@6}]}]"},
	step{&pb.TxnRequest{Success: []*pb.RequestOp{{}}}, keyNotFound},
	step{&pb.TxnRequest{Failure: []*pb.RequestOp{{}}}, keyNotFound},
	step{do(put("", "1")), keyMissing},
	step{&pb.TxnRequest{Failure: ops(get(""))}, keyMissing},
	step{when(compare("", "", 0, 0, 0)), keyMissing},
	step{do(sorted(9, 0, 0)), "InvalidArgument: etcdserver: invalid sort option"},
	step{do(&pb.PutRequest{Key: []byte("a"), Value: []byte("1"), IgnoreValue: true}), "InvalidArgument: etcdserver: value is provided"},
)

// Rule 8: the budget of operations is shared by what is nested.
var _ = add("txn-limit", func(t *testing.T, s *server) {
	const tooMany = "InvalidArgument: etcdserver: too many operations in txn request"
	many := func(count int) *pb.TxnRequest {
		txn := &pb.TxnRequest{}
		for at := range count {
			txn.Success = append(txn.Success, op(get(fmt.Sprint(at))))
		}
		return txn
	}
	code := func(request *pb.TxnRequest) string {
		if text := s.call(deadline(t), request); text == tooMany {
			return text
		}
		return "ok"
	}
	compares := &pb.TxnRequest{}
	for range 129 {
		compares.Compare = append(compares.Compare, compare("a", "", 0, pb.Compare_MOD, 0))
	}
	nested := func(outer, inner int) *pb.TxnRequest {
		txn := many(outer - 1)
		txn.Success = append(txn.Success, op(many(inner)))
		return txn
	}
	for at, got := range []string{code(many(128)), code(nested(100, 28)), code(nested(1, 127))} {
		if got != "ok" {
			t.Errorf("allowed transaction %d: %s", at, got)
		}
	}
	for at, got := range []string{code(many(129)), code(compares), code(nested(100, 29)), code(nested(128, 1)), code(nested(1, 128))} {
		if got != tooMany {
			t.Errorf("refused transaction %d: %s", at, got)
		}
	}
})

// Rules 10, 11 and 13.
var _ = table("txn-nested",
	step{put("a", "1"), "@1"},
	step{do(
		put("b", "2"),
		&pb.TxnRequest{
			Compare: []*pb.Compare{compare("b", "", pb.Compare_EQUAL, pb.Compare_CREATE, 0)},
			Success: ops(put("c", "before"), get("b")),
			Failure: ops(put("c", "after")),
		},
		get("b"),
		list("a", "z"),
		remove("a", "b"),
		list("a", "z"),
	), "@2 succeeded responses[response_put:{@2}, response_txn:{@ succeeded responses[response_put:{@2}, response_range:{@2 kvs[b=2 c2 m2 v1] count:1}]}, " +
		"response_range:{@2 kvs[b=2 c2 m2 v1] count:1}, response_range:{@2 kvs[a=1 c1 m1 v1, b=2 c2 m2 v1, c=before c2 m2 v1] count:3}, " +
		"response_delete_range:{@2 deleted:1}, response_range:{@2 kvs[b=2 c2 m2 v1, c=before c2 m2 v1] count:2}]"},
	step{do(get("b"), put("b", "3")), "@3 succeeded responses[response_range:{@2 kvs[b=2 c2 m2 v1] count:1}, response_put:{@3}]"},
	step{do(remove("b", ""), &pb.RangeRequest{Key: []byte("b"), Revision: 4}), future},
	step{do(put("x", "1"), &pb.PutRequest{Key: []byte("y"), Lease: 99}), leaseNotFound},
	step{do(put("x", "1"), do(&pb.PutRequest{Key: []byte("y"), Lease: 99})), leaseNotFound},
	step{get("x"), "@3"},
	step{&pb.TxnRequest{Success: ops(put("x", "1")), Failure: ops(&pb.PutRequest{Key: []byte("y"), Lease: 99})}, "@4 succeeded responses[response_put:{@4}]"},
	step{do(&pb.PutRequest{Key: []byte("x"), Value: []byte("2"), PrevKv: true}, &pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte("d"), PrevKv: true}),
		"@5 succeeded responses[response_put:{@5 prev_kv:{x=1 c4 m4 v1}}, response_delete_range:{@5 deleted:2 prev_kvs[b=3 c2 m3 v2, c=before c2 m2 v1]}]"},
	step{do(remove("x", ""), &pb.RangeRequest{Key: []byte("x"), Revision: 5}), "@6 succeeded responses[response_delete_range:{@6 deleted:1}, response_range:{@6 kvs[x=2 c4 m5 v2] count:1}]"},
)

// Rule 12, and each comparison of each target.
var _ = add("compare", func(t *testing.T, s *server) {
	must[*pb.LeaseGrantResponse](t, s, &pb.LeaseGrantRequest{ID: 7, TTL: 1000})
	must[*pb.PutResponse](t, s, put("a", "m"))
	must[*pb.PutResponse](t, s, put("b", "m"))
	must[*pb.PutResponse](t, s, &pb.PutRequest{Key: []byte("b"), Value: []byte("n"), Lease: 7})
	const no, yes = "@3", "@3 succeeded"
	equal, greater, less, notEqual := pb.Compare_EQUAL, pb.Compare_GREATER, pb.Compare_LESS, pb.Compare_NOT_EQUAL
	for _, row := range []struct {
		key, end string
		result   pb.Compare_CompareResult
		target   pb.Compare_CompareTarget
		value    any
		want     string
	}{
		{"a", "", equal, pb.Compare_VERSION, 1, yes}, {"a", "", greater, pb.Compare_VERSION, 0, yes},
		{"b", "", less, pb.Compare_VERSION, 2, no}, {"b", "", notEqual, pb.Compare_VERSION, 2, no},
		{"a", "", equal, pb.Compare_CREATE, 1, yes}, {"b", "", less, pb.Compare_CREATE, 3, yes},
		{"b", "", equal, pb.Compare_MOD, 3, yes}, {"b", "", greater, pb.Compare_MOD, 3, no},
		{"a", "", equal, pb.Compare_VALUE, "m", yes}, {"a", "", greater, pb.Compare_VALUE, "l", yes},
		{"a", "", less, pb.Compare_VALUE, "ma", yes}, {"a", "", notEqual, pb.Compare_VALUE, "m", no},
		{"b", "", equal, pb.Compare_LEASE, 7, yes}, {"a", "", equal, pb.Compare_LEASE, 0, yes},
		{"a", "", less, pb.Compare_LEASE, 7, yes}, {"b", "", greater, pb.Compare_LEASE, -1, yes},
		// No such key.
		{"x", "", equal, pb.Compare_VERSION, 0, yes}, {"x", "", equal, pb.Compare_CREATE, 0, yes},
		{"x", "", equal, pb.Compare_MOD, 0, yes}, {"x", "", equal, pb.Compare_LEASE, 0, yes},
		{"x", "", less, pb.Compare_MOD, 1, yes}, {"x", "", greater, pb.Compare_VERSION, 0, no},
		{"x", "", equal, pb.Compare_VALUE, "", no}, {"x", "", notEqual, pb.Compare_VALUE, "m", no},
		// Ranges: every key must match.
		{"a", "c", greater, pb.Compare_VERSION, 0, yes}, {"a", "c", equal, pb.Compare_VERSION, 1, no},
		{"a", "c", greater, pb.Compare_VALUE, "l", yes}, {"a", "c", equal, pb.Compare_VALUE, "m", no},
		{"a", "\x00", notEqual, pb.Compare_MOD, 9, yes}, {"b", "\x00", equal, pb.Compare_LEASE, 7, yes},
		{"x", "z", equal, pb.Compare_CREATE, 0, yes}, {"x", "z", equal, pb.Compare_VALUE, "", no},
		{"x", "z", notEqual, pb.Compare_VALUE, "m", no}, {"x", "z", notEqual, pb.Compare_MOD, 0, no},
		{"b", "a", equal, pb.Compare_VERSION, 0, yes},
		// Results and targets that are not known.
		{"a", "", 9, pb.Compare_VERSION, 9, yes}, {"a", "", 9, pb.Compare_VALUE, "x", yes},
	} {
		s.steps(t, step{when(compare(row.key, row.end, row.result, row.target, row.value)), row.want})
	}
	// A union of another target, or none, counts as zero.
	s.steps(t,
		step{when(&pb.Compare{Key: []byte("a"), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_Version{Version: 1}}), no},
		step{when(&pb.Compare{Key: []byte("x"), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_Version{Version: 1}}), yes},
		step{when(&pb.Compare{Key: []byte("x"), Target: pb.Compare_MOD}), yes},
		step{when(&pb.Compare{Key: []byte("a"), Target: 9}), yes},
		step{when(compare("a", "", equal, pb.Compare_VERSION, 1), compare("b", "", equal, pb.Compare_VERSION, 1)), no},
	)
})
