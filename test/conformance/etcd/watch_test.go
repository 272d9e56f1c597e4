package etcd

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"
)

// A stream of watchers.
type watchStream struct {
	t         testing.TB
	s         *server
	stream    pb.Watch_WatchClient
	responses chan *pb.WatchResponse
	failed    chan error
}

func (s *server) watch(t testing.TB) *watchStream {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(deadline(t), "hasleader", "true")
	ctx, cancel := context.WithCancel(ctx)
	t.Cleanup(cancel)
	stream, err := pb.NewWatchClient(s.conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &watchStream{t, s, stream, make(chan *pb.WatchResponse, 1000), make(chan error, 1)}
	go func() {
		for {
			response, err := stream.Recv()
			if err != nil {
				w.failed <- err
				return
			}
			w.responses <- response
		}
	}()
	return w
}

func (w *watchStream) send(request *pb.WatchRequest) *watchStream {
	if err := w.stream.Send(rebased(request, w.s.base).(*pb.WatchRequest)); err != nil {
		w.t.Fatal(err)
	}
	return w
}

func (w *watchStream) create(request *pb.WatchCreateRequest) *watchStream {
	return w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}})
}

func (w *watchStream) cancel(id int64) *watchStream {
	return w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (w *watchStream) progress() *watchStream {
	return w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (w *watchStream) next() *pb.WatchResponse {
	w.t.Helper()
	select {
	case response := <-w.responses:
		return response
	case err := <-w.failed:
		w.t.Fatalf("the watch ended: %v", err)
	case <-time.After(callLimit):
		w.t.Fatal("no response to a watch")
	}
	return nil
}

// expect reads the next responses: watch_id is left out when it is 0.
func (w *watchStream) expect(wanted ...string) *watchStream {
	w.t.Helper()
	for _, want := range wanted {
		if got := w.s.text(w.next(), nil); got != want {
			w.t.Errorf("watch\n got: %s\nwant: %s", got, want)
		}
	}
	return w
}

// expectNothing gives the server some time to send what it must not.
func (w *watchStream) expectNothing() *watchStream {
	w.t.Helper()
	select {
	case response := <-w.responses:
		w.t.Errorf("watch got what it must not: %s", w.s.text(response, nil))
	case <-time.After(300 * time.Millisecond):
	}
	return w
}

func watchKey(key string) *pb.WatchCreateRequest { return &pb.WatchCreateRequest{Key: []byte(key)} }

func watchRange(key, end string, start int64) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), StartRevision: start}
}

// Rule 21; rule 19: what a deletion's event has.
var _ = add("watch-events", func(t *testing.T, s *server) {
	must[*pb.PutResponse](t, s, put("a", "1"))
	w := s.watch(t).create(watchKey("a")).expect("@1 created")
	s.steps(t,
		step{put("a", "2"), "@2"},
		step{put("b", "2"), "@3"},
		step{remove("a", ""), "@4 deleted:1"},
		step{put("a", "3"), "@5"},
	)
	w.expect(
		"@2 events[kv:{a=2 c1 m2 v2}]",
		"@4 events[type:DELETE kv:{a= m4}]",
		"@5 events[kv:{a=3 c5 m5 v1}]",
	)
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), PrevKv: true, StartRevision: 1}).expect(
		"@5 watch_id:1 created",
		"@5 watch_id:1 events[kv:{a=1 c1 m1 v1}, kv:{a=2 c1 m2 v2} prev_kv:{a=1 c1 m1 v1}, "+
			"type:DELETE kv:{a= m4} prev_kv:{a=2 c1 m2 v2}, kv:{a=3 c5 m5 v1}]")
})

// Rule 20: the events of a transaction are together, in its order.
var _ = add("watch-transaction", func(t *testing.T, s *server) {
	w := s.watch(t).create(watchRange("a", "z", 0)).expect("@0 created")
	s.steps(t, step{do(put("b", "1"), put("a", "1"), remove("x", "")),
		"@1 succeeded responses[response_put:{@1}, response_put:{@1}, response_delete_range:{@1}]"})
	w.expect("@1 events[kv:{b=1 c1 m1 v1}, kv:{a=1 c1 m1 v1}]")
	s.steps(t, step{do(remove("a", "c"), put("d", "1")), "@2 succeeded responses[response_delete_range:{@2 deleted:2}, response_put:{@2}]"})
	w.expect("@2 events[type:DELETE kv:{a= m2}, type:DELETE kv:{b= m2}, kv:{d=1 c2 m2 v1}]")
	// From a revision in the past all that is there comes in the order in which it was written.
	s.watch(t).create(watchRange("a", "z", 1)).expect("@2 created",
		"@2 events[kv:{b=1 c1 m1 v1}, kv:{a=1 c1 m1 v1}, type:DELETE kv:{a= m2}, type:DELETE kv:{b= m2}, kv:{d=1 c2 m2 v1}]")
})

// Rules 21 and 22: ids, cancelation, what is refused.
var _ = add("watch-ids", func(t *testing.T, s *server) {
	const refused = "@0 watch_id:-1 created canceled cancel_reason:"
	w := s.watch(t)
	w.create(watchKey("a")).expect("@0 created")
	w.create(watchKey("a")).expect("@0 watch_id:1 created")
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 5}).expect("@0 watch_id:5 created")
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 2}).expect("@0 watch_id:2 created")
	w.create(watchKey("b")).expect("@0 watch_id:3 created")
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 5}).expect(refused + "mvcc: duplicate watch ID provided on the WatchStream")
	w.create(watchRange("b", "a", 0)).expect(refused + "mvcc: watcher range is empty")
	w.create(watchRange("a", "a", 0)).expect(refused + "mvcc: watcher range is empty")
	w.cancel(1).expect("@0 watch_id:1 canceled")
	w.cancel(1).cancel(99).expectNothing()
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 1}).expect("@0 watch_id:1 created")
	w.send(&pb.WatchRequest{})
	s.steps(t, step{put("b", "1"), "@1"})
	w.expect("@1 watch_id:3 events[kv:{b=1 c1 m1 v1}]")
	s.steps(t, step{put("a", "1"), "@2"})
	ids := map[int64]bool{}
	for range 4 {
		response := w.next()
		if ids[response.WatchId] || len(response.Events) != 1 {
			t.Errorf("unexpected response %s", s.text(response, nil))
		}
		ids[response.WatchId] = true
	}
	if fmt.Sprint(ids) != "map[0:true 1:true 2:true 5:true]" {
		t.Errorf("events for the watchers %v", ids)
	}
})

// A key that is not given is the first of all.
var _ = add("watch-all", func(t *testing.T, s *server) {
	w := s.watch(t).create(watchRange("", "\x00", 0)).expect("@0 created")
	from := s.watch(t).create(watchRange("b", "\x00", 0)).expect("@0 created")
	s.steps(t, step{put("a", "1"), "@1"}, step{put("c", "1"), "@2"})
	w.expect("@1 events[kv:{a=1 c1 m1 v1}]", "@2 events[kv:{c=1 c2 m2 v1}]")
	from.expect("@2 events[kv:{c=1 c2 m2 v1}]")
})

// Rules 23 and 24.
var _ = add("watch-compacted", func(t *testing.T, s *server) {
	s.steps(t,
		step{put("a", "1"), "@1"},
		step{put("a", "2"), "@2"},
		step{put("a", "3"), "@3"},
		step{&pb.CompactionRequest{Revision: 2, Physical: true}, "@3"},
	)
	w := s.watch(t)
	w.create(watchRange("a", "", 1)).expect("@3 created", "@ canceled compact_revision:2")
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 2, PrevKv: true}).expect(
		"@3 watch_id:1 created",
		"@3 watch_id:1 events[kv:{a=2 c1 m2 v2}, kv:{a=3 c1 m3 v3} prev_kv:{a=2 c1 m2 v2}]")
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: -1}).expect(
		"@3 watch_id:-1 created canceled cancel_reason:etcdserver: mvcc: required revision has been compacted")
	// A watcher that has seen everything is not disturbed by a compaction.
	s.steps(t, step{&pb.CompactionRequest{Revision: 3}, "@3"}, step{put("a", "4"), "@4"})
	w.expect("@4 watch_id:1 events[kv:{a=4 c1 m4 v4} prev_kv:{a=3 c1 m3 v3}]")
})

var _ = add("watch-future", func(t *testing.T, s *server) {
	w := s.watch(t).create(watchRange("a", "z", 3)).expect("@0 created")
	w.progress().expectNothing()
	s.steps(t, step{put("a", "1"), "@1"}, step{put("b", "1"), "@2"}, step{put("c", "1"), "@3"})
	w.expect("@3 events[kv:{c=1 c3 m3 v1}]")
	w.progress().expect("@3 watch_id:-1")
})

// Rule 25.
var _ = add("watch-progress", func(t *testing.T, s *server) {
	w := s.watch(t).progress().expectNothing()
	w.create(watchKey("a")).expect("@0 created")
	w.create(watchKey("b")).expect("@0 watch_id:1 created")
	w.progress().expect("@0 watch_id:-1")
	must[*pb.PutResponse](t, s, put("c", "1"))
	w.progress().expect("@1 watch_id:-1")
	must[*pb.PutResponse](t, s, put("a", "1"))
	w.progress().expect("@2 events[kv:{a=1 c2 m2 v1}]", "@2 watch_id:-1")
	w.cancel(0).cancel(1).expect("@2 canceled", "@2 watch_id:1 canceled")
})

// Rule 26: what filters drop sends nothing.
var _ = add("watch-filters", func(t *testing.T, s *server) {
	w := s.watch(t)
	filtered := func(filters ...pb.WatchCreateRequest_FilterType) {
		w.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("z"), Filters: filters})
	}
	filtered(pb.WatchCreateRequest_NOPUT)
	filtered(pb.WatchCreateRequest_NODELETE)
	filtered(pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE)
	w.expect("@0 created", "@0 watch_id:1 created", "@0 watch_id:2 created")
	must[*pb.PutResponse](t, s, put("a", "1"))
	w.expect("@1 watch_id:1 events[kv:{a=1 c1 m1 v1}]")
	must[*pb.DeleteRangeResponse](t, s, remove("a", ""))
	w.expect("@2 events[type:DELETE kv:{a= m2}]")
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 1, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}}).expect(
		"@2 watch_id:3 created", "@2 watch_id:3 events[type:DELETE kv:{a= m2}]")
	w.expectNothing()
})

// A client that has sent its last request still gets its events.
var _ = add("watch-half-closed", func(t *testing.T, s *server) {
	w := s.watch(t).create(watchKey("a")).expect("@0 created")
	if err := w.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	must[*pb.PutResponse](t, s, put("a", "1"))
	w.expect("@1 events[kv:{a=1 c1 m1 v1}]")
})

// Rule 20: with `fragment`, a response beyond the limit comes in parts; without, it comes whole.
var _ = add("watch-fragment", func(t *testing.T, s *server) {
	value := strings.Repeat("v", 900_000)
	for key := range 6 {
		must[*pb.PutResponse](t, s, put(fmt.Sprint("a", key), value))
	}
	s.steps(t, step{remove("a", "b"), "@7 deleted:6"})
	for _, fragment := range []bool{false, true} {
		w := s.watch(t)
		w.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b"), StartRevision: 7, PrevKv: true, Fragment: fragment}).expect("@7 created")
		events, parts := 0, 0
		for {
			response := w.next()
			parts++
			events += len(response.Events)
			if response.Header.Revision != s.base+7 {
				t.Errorf("part %d has revision %d", parts, response.Header.Revision-s.base)
			}
			if !response.Fragment {
				break
			}
		}
		if events != 6 || (parts > 1) != fragment {
			t.Errorf("fragment %v: %d events in %d parts", fragment, events, parts)
		}
		w.progress().expect("@7 watch_id:-1")
	}
})

// Rule 26: progress is told at intervals to watchers that ask for it.
func TestProgressNotify(t *testing.T) {
	flags := map[string][]string{
		etcd: {"--watch-progress-notify-interval", "500ms"},
		k8s:  {"--progress-notify-interval-ms", "500"},
	}
	onEach(t, flags, func(t *testing.T, s *server) {
		s.empty(t)
		w := s.watch(t)
		w.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true}).expect("@0 created")
		w.create(watchKey("a")).expect("@0 watch_id:1 created")
		w.expect("@0", "@0")
		must[*pb.PutResponse](t, s, put("b", "1"))
		for response := w.next(); s.text(response, nil) != "@1"; response = w.next() {
			if text := s.text(response, nil); text != "@0" {
				t.Errorf("between events of others: %s", text)
			}
		}
	})
}
