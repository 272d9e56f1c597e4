package linearizability

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
)

// What one watcher got, over all of its streams: each begins where the one before has ended.
type watched struct {
	request   *pb.WatchCreateRequest
	responses []*pb.WatchResponse
	// Its streams may be with different members of an etcd. One that catches up tells in the headers of its events of a revision that
	// it has not come to, and another one may be behind.
	ofMembers bool
	// Where the next stream begins.
	next atomic.Int64
}

// waitFor lets watchers come to a revision; what keeps them from it is found by check.
func waitFor(watchers []*watched, revision int64) {
	deadline := time.Now().Add(checkLimit)
	for _, w := range watchers {
		for w.next.Load() <= revision && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func newWatchers() []*watched {
	return []*watched{
		{request: &pb.WatchCreateRequest{Key: []byte(prefix), RangeEnd: []byte(afterPrefix)}},
		{request: &pb.WatchCreateRequest{Key: keyName(1)}},
		{request: &pb.WatchCreateRequest{Key: keyName(2), RangeEnd: keyName(4), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}}},
	}
}

// covers is the revision up to which a response has told of everything.
func (w *watched) covers(response *pb.WatchResponse) int64 {
	if count := len(response.Events); w.ofMembers && count > 0 {
		return response.Events[count-1].Kv.ModRevision
	}
	return response.Header.Revision
}

// follow watches from the first revision on, and resumes what breaks, until the context ends.
func (w *watched) follow(ctx context.Context, conn *grpc.ClientConn) {
	w.next.Store(2)
	for ctx.Err() == nil {
		w.stream(ctx, conn)
		time.Sleep(10 * time.Millisecond)
	}
}

func (w *watched) stream(ctx context.Context, conn *grpc.ClientConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return
	}
	create := &pb.WatchCreateRequest{
		Key: w.request.Key, RangeEnd: w.request.RangeEnd, Filters: w.request.Filters,
		PrevKv: true, ProgressNotify: true, StartRevision: w.next.Load(),
	}
	if stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}) != nil {
		return
	}
	go func() {
		progress := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
		for ctx.Err() == nil && stream.Send(progress) == nil {
			time.Sleep(50 * time.Millisecond)
		}
	}()
	for {
		response, err := stream.Recv()
		if err != nil {
			return
		}
		w.responses = append(w.responses, response)
		// A progress notification is where one may resume, too.
		if !response.Created {
			w.next.Store(max(w.next.Load(), w.covers(response)+1))
		}
	}
}

// The events of each revision, in its order: what a watcher of everything got in the end.
type eventLog map[int64][]*mvccpb.Event

func (w *watched) matches(event *mvccpb.Event) bool {
	for _, filter := range w.request.Filters {
		if filter == pb.WatchCreateRequest_NOPUT && event.Type == mvccpb.PUT || filter == pb.WatchCreateRequest_NODELETE && event.Type == mvccpb.DELETE {
			return false
		}
	}
	key := string(event.Kv.Key)
	if len(w.request.RangeEnd) == 0 {
		return key == string(w.request.Key)
	}
	return key >= string(w.request.Key) && key < string(w.request.RangeEnd)
}

// check holds a watcher to etcd's guarantees (https://etcd.io/docs/v3.6/learning/api_guarantees/#watch-apis):
// ordered, unique, reliable, atomic, resumable and bookmarkable.
func (w *watched) check(log eventLog, newest int64) []string {
	var problems []string
	told, seen := int64(1), int64(1)
	for _, response := range w.responses {
		revision := w.covers(response)
		if response.Canceled {
			problems = append(problems, fmt.Sprintf("canceled at revision %d: %s", revision, response.CancelReason))
		}
		if response.Created {
			if w.ofMembers {
				seen = 0
			}
			continue
		}
		var got []*mvccpb.Event
		for at, event := range response.Events {
			if event.Kv.ModRevision <= told {
				problems = append(problems, fmt.Sprintf("revision %d came after revision %d was told", event.Kv.ModRevision, told))
			}
			if at > 0 && event.Kv.ModRevision < response.Events[at-1].Kv.ModRevision {
				problems = append(problems, fmt.Sprintf("revision %d came after %d", event.Kv.ModRevision, response.Events[at-1].Kv.ModRevision))
			}
			got = append(got, event)
		}
		// What a response covers, it covers whole: nothing before or in its revision is left out or comes later.
		var wanted []*mvccpb.Event
		for at := told + 1; at <= revision; at++ {
			for _, event := range log[at] {
				if w.matches(event) {
					wanted = append(wanted, event)
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(wanted) {
			problems = append(problems, fmt.Sprintf("between revisions %d and %d\n got: %v\nwant: %v", told, revision, got, wanted))
		}
		if revision < seen {
			problems = append(problems, fmt.Sprintf("a header went back from %d to %d", seen, revision))
		}
		told, seen = max(told, revision), max(seen, revision)
	}
	if told < newest {
		problems = append(problems, fmt.Sprintf("the watcher ended at revision %d of %d", told, newest))
	}
	return problems
}

// problems are those of the log itself, and of watchers that should have got what it has.
func (log eventLog) problems(newest int64, watchers []*watched) []string {
	_, problems := log.replay(newest)
	for at, w := range watchers {
		for _, problem := range w.check(log, newest) {
			problems = append(problems, fmt.Sprintf("watcher %d: %s", at, problem))
		}
	}
	return problems
}

// replay checks each event against the states that the events before it made: previous values, create
// revisions and versions. It returns the state of each revision.
func (log eventLog) replay(newest int64) (map[int64][keyCount]cell, []string) {
	states := map[int64][keyCount]cell{1: {}}
	var problems []string
	var keys [keyCount]cell
	for revision := int64(2); revision <= newest; revision++ {
		if len(log[revision]) == 0 {
			problems = append(problems, fmt.Sprintf("revision %d of %d has no events", revision, newest))
		}
		for _, event := range log[revision] {
			key := keyOf(event.Kv.Key)
			old, now := keys[key], cellOf(event.Kv)
			if cellOf(event.PrevKv) != old {
				problems = append(problems, fmt.Sprintf("%v: before it the key had %v", event, old))
			}
			wanted := cell{mod: revision}
			if event.Type == mvccpb.PUT {
				wanted = cell{value: now.value, create: old.create, mod: revision, version: old.version + 1, lease: now.lease}
				if old.version == 0 {
					wanted.create = revision
				}
			}
			if now != wanted {
				problems = append(problems, fmt.Sprintf("%v: it should have %v", event, wanted))
			}
			if keys[key] = now; event.Type == mvccpb.DELETE {
				keys[key] = cell{}
			}
		}
		states[revision] = keys
	}
	return states, problems
}
