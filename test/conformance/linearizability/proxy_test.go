package linearizability

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
)

const (
	memberCount = 3
	// For all members to serve again after a fault.
	recoveryLimit = time.Minute
)

// An etcd of three members, and what the daemon of mode ha has in front of them.
type ensemble struct {
	t         *testing.T
	directory string
	// Of clients and of peers, of each member.
	ports   [memberCount][2]int
	members [memberCount]*exec.Cmd
	direct  [memberCount]*grpc.ClientConn
	proxy   *exec.Cmd
}

func startEnsemble(t *testing.T) *ensemble {
	e := &ensemble{t: t, directory: t.TempDir()}
	for at := range memberCount {
		e.ports[at] = [2]int{freePort(t), freePort(t)}
		e.direct[at] = connect(t, fmt.Sprintf("127.0.0.1:%d", e.ports[at][0]))
	}
	for at := range memberCount {
		e.startMember(at)
	}
	e.startProxy()
	e.recover()
	return e
}

func (e *ensemble) socket() string { return filepath.Join(e.directory, "proxy.sock") }

func (e *ensemble) startMember(at int) {
	var all []string
	for other, ports := range e.ports {
		all = append(all, fmt.Sprintf("m%d=http://127.0.0.1:%d", other, ports[1]))
	}
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", e.ports[at][0]), fmt.Sprintf("http://127.0.0.1:%d", e.ports[at][1])
	e.members[at] = exec.Command(os.Getenv("ETCD"), fmt.Sprintf("--name=m%d", at), "--log-level=fatal",
		"--data-dir="+filepath.Join(e.directory, fmt.Sprintf("m%d", at)),
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster="+strings.Join(all, ","))
	e.members[at].SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.members[at].Start(); err != nil {
		e.t.Fatal(err)
	}
}

func (e *ensemble) startProxy() {
	args := append(strings.Fields(os.Getenv("PROXY")), e.socket())
	for _, ports := range e.ports {
		args = append(args, fmt.Sprintf("http://127.0.0.1:%d", ports[0]))
	}
	e.proxy = run(e.t, args[0], args[1:]...)
}

// recover waits until each member reads the newest state.
func (e *ensemble) recover() {
	ctx, cancel := context.WithTimeout(context.Background(), recoveryLimit)
	defer cancel()
	for at, conn := range e.direct {
		for {
			asked, cancelAsked := context.WithTimeout(ctx, callLimit)
			_, err := pb.NewKVClient(conn).Range(asked, &pb.RangeRequest{Key: []byte("x")})
			cancelAsked()
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				e.t.Fatalf("member %d does not serve again: %v", at, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// leader returns the member that leads, or any where none is known.
func (e *ensemble) leader() int {
	for at, conn := range e.direct {
		ctx, cancel := context.WithTimeout(context.Background(), callLimit)
		status, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
		cancel()
		if err == nil && status.Leader == status.Header.MemberId {
			return at
		}
	}
	return 0
}

func end(process *exec.Cmd, signal os.Signal) {
	process.Process.Signal(signal)
	process.Wait()
}

// fail makes something fail for a while, and then well again; it returns what it was.
func (e *ensemble) fail(random *rand.Rand) string {
	at := random.IntN(memberCount)
	other := (at + 1 + random.IntN(memberCount-1)) % memberCount
	hold := time.Duration(300+random.IntN(2200)) * time.Millisecond
	kind := random.IntN(8)
	if kind == 1 || kind == 3 {
		at = e.leader()
	}
	switch kind {
	case 0, 1: // killed
		end(e.members[at], syscall.SIGKILL)
		time.Sleep(hold)
		e.startMember(at)
	case 2, 3: // hangs
		e.members[at].Process.Signal(syscall.SIGSTOP)
		time.Sleep(hold)
		e.members[at].Process.Signal(syscall.SIGCONT)
	case 4: // stopped
		end(e.members[at], syscall.SIGTERM)
		time.Sleep(hold)
		e.startMember(at)
	case 5: // no majority is left
		end(e.members[at], syscall.SIGKILL)
		end(e.members[other], syscall.SIGKILL)
		time.Sleep(hold)
		e.startMember(at)
		e.startMember(other)
	case 6: // a majority hangs
		e.members[at].Process.Signal(syscall.SIGSTOP)
		e.members[other].Process.Signal(syscall.SIGSTOP)
		time.Sleep(hold)
		e.members[at].Process.Signal(syscall.SIGCONT)
		e.members[other].Process.Signal(syscall.SIGCONT)
	case 7:
		end(e.proxy, syscall.SIGKILL)
		e.startProxy()
	}
	names := []string{"a member is killed", "the leader is killed", "a member hangs", "the leader hangs", "a member is stopped",
		"two members are killed", "two members hang", "the proxy is killed"}
	return names[kind]
}

func (e *ensemble) stop() {
	end(e.proxy, syscall.SIGKILL)
	for _, member := range e.members {
		end(member, syscall.SIGKILL)
	}
}

// setting is a number from the environment.
func setting(t *testing.T, name string, usual int64) int64 {
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("cannot use %s=%s: it is to be a whole number", name, text)
	}
	return value
}

// TestProxy lets clients and watchers work through the proxy of mode ha while the members behind it fail, the leader among
// them, and the proxy itself, and checks what they saw. Leases, which no revision tells of, are not asked for: whether one that got
// no answer was granted cannot be known.
func TestProxy(t *testing.T) {
	seed := setting(t, "FAULT_SEED", time.Now().Unix())
	seconds := setting(t, "FAULT_SECONDS", 30)
	for range setting(t, "FAULT_ROUNDS", 1) {
		tryProxy(t, seed, seconds)
		seed++
	}
}

func tryProxy(t *testing.T, seed, seconds int64) {
	t.Logf("FAULT_SEED=%d FAULT_SECONDS=%d", seed, seconds)
	e := startEnsemble(t)
	defer e.stop()
	random := rand.New(rand.NewPCG(uint64(seed), 2026))

	traffic, endTraffic := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
	defer endTraffic()
	watching, endWatching := context.WithCancel(context.Background())
	defer endWatching()
	history := &history{started: time.Now()}
	var working, followers sync.WaitGroup
	for id := range clients {
		conn := connect(t, "unix://"+e.socket())
		working.Go(func() { history.run(traffic, id, conn, false) })
	}
	watchers := newWatchers()
	for _, w := range watchers {
		w.ofMembers = true
		conn := connect(t, "unix://"+e.socket())
		followers.Go(func() { w.follow(watching, conn) })
	}

	var faults []string
	for traffic.Err() == nil {
		time.Sleep(time.Duration(500+random.IntN(1500)) * time.Millisecond)
		faults = append(faults, e.fail(random))
		e.recover()
	}
	working.Wait()

	newest, log := readLog(t, connect(t, "unix://"+e.socket()))
	waitFor(watchers, newest)
	endWatching()
	followers.Wait()
	operations, problems := settledByLog(history.operations, log)
	unknown := 0
	for _, operation := range history.operations {
		if operation.Output.(response).isUnknown {
			unknown++
		}
	}
	t.Logf("%d operations, %d of them without an answer, %d revisions, %d faults: %s",
		len(history.operations), unknown, newest, len(faults), strings.Join(faults, ", "))
	if len(history.operations) < 1000 || newest < 500 || len(faults) < 4 {
		t.Error("that is too little to be of use")
	}
	judge(t, operations, append(problems, log.problems(newest, watchers)...))
}

// settledByLog is as settled, for servers of which a part may do what nobody waits for any more, and late. A write without an
// answer that is in the log happened before anybody was answered with its revision or a later one.
func settledByLog(operations []porcupine.Operation, log eventLog) ([]porcupine.Operation, []string) {
	var problems []string
	revisionOf := map[int64]int64{}
	deletions := map[int64]int{}
	for revision, events := range log {
		for _, event := range events {
			if event.Type == mvccpb.DELETE {
				deletions[revision] = keyOf(event.Kv.Key)
				continue
			}
			value := cellOf(event.Kv).value
			if before := revisionOf[value]; before != 0 && before != revision {
				problems = append(problems, fmt.Sprintf("the value %d was written twice, at %d and %d", value, before, revision))
			}
			revisionOf[value] = revision
		}
	}
	answered := slices.DeleteFunc(slices.Clone(operations), func(operation porcupine.Operation) bool {
		return operation.Output.(response).isUnknown
	})
	slices.SortFunc(answered, func(a, b porcupine.Operation) int {
		return int(a.Output.(response).revision - b.Output.(response).revision)
	})
	// knownAt[i] is when somebody first knew of the revision of answered[i], or of a later one.
	knownAt := make([]int64, len(answered)+1)
	knownAt[len(answered)] = math.MaxInt64
	for at := len(answered) - 1; at >= 0; at-- {
		knownAt[at] = min(knownAt[at+1], answered[at].Return)
	}
	for _, operation := range answered {
		r, out := operation.Input.(request), operation.Output.(response)
		// One that found nothing is answered with a revision of somebody else's, which may be that of a deletion without an answer.
		if r.kind == deleteKey && out.cells[r.key].version != 0 {
			delete(deletions, out.revision)
		}
		if r.value != 0 && out.succeeded && revisionOf[r.value] != out.revision {
			problems = append(problems, fmt.Sprintf("%+v was acknowledged at revision %d and is at %d", r, out.revision, revisionOf[r.value]))
		}
		if r.value != 0 && !out.succeeded && revisionOf[r.value] != 0 {
			problems = append(problems, fmt.Sprintf("%+v was refused and is at revision %d", r, revisionOf[r.value]))
		}
	}
	kept := answered
	for _, operation := range operations {
		r, out := operation.Input.(request), operation.Output.(response)
		if !out.isUnknown {
			continue
		}
		if r.kind == deleteKey {
			// One that found nothing to delete has changed nothing.
			hasHappened := false
			for _, key := range deletions {
				hasHappened = hasHappened || key == r.key
			}
			operation.Return = math.MaxInt64
			if hasHappened {
				kept = append(kept, operation)
			}
			continue
		}
		out.revision = revisionOf[r.value]
		if out.revision == 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(answered, out.revision, func(one porcupine.Operation, revision int64) int {
			return int(one.Output.(response).revision - revision)
		})
		operation.Output, operation.Return = out, max(operation.Call, knownAt[at])
		kept = append(kept, operation)
	}
	return kept, problems
}

// TestSettledByLog shows what is made of writes without an answer.
func TestSettledByLog(t *testing.T) {
	put := func(key int, value, revision int64) *mvccpb.Event {
		kv := &mvccpb.KeyValue{Key: keyName(key), Value: strconv.AppendInt(nil, value, 10), ModRevision: revision}
		return &mvccpb.Event{Type: mvccpb.PUT, Kv: kv}
	}
	unknown := func(r request) porcupine.Operation {
		return porcupine.Operation{Input: r, Call: 1, Output: response{isUnknown: true}, Return: 2}
	}
	read := porcupine.Operation{Input: request{kind: listKeys}, Call: 20, Output: response{succeeded: true, revision: 3}, Return: 30}
	log := eventLog{2: {put(0, 1, 2)}, 4: {put(0, 2, 4)}}
	operations := []porcupine.Operation{
		unknown(request{kind: putKey, value: 1}),
		unknown(request{kind: putKey, value: 2}),
		unknown(request{kind: putKey, value: 3}),
		unknown(request{kind: deleteKey}),
		read,
	}
	kept, problems := settledByLog(operations, log)
	if len(problems) > 0 || len(kept) != 3 {
		t.Fatalf("%v %v", kept, problems)
	}
	for at, want := range []struct{ revision, end int64 }{{3, 30}, {2, 30}, {4, math.MaxInt64}} {
		if got := kept[at]; got.Output.(response).revision != want.revision || got.Return != want.end {
			t.Errorf("%d: %+v", at, got)
		}
	}
	deletion := &mvccpb.Event{Type: mvccpb.DELETE, Kv: &mvccpb.KeyValue{Key: keyName(0), ModRevision: 3}}
	found := porcupine.Operation{Input: request{kind: deleteKey}, Output: response{succeeded: true, revision: 3, cells: [keyCount]cell{{version: 1}}}}
	nothing := porcupine.Operation{Input: request{kind: deleteKey}, Output: response{succeeded: true, revision: 3}}
	for _, row := range []struct {
		answered porcupine.Operation
		want     int
	}{{found, 1}, {nothing, 2}} {
		kept, _ := settledByLog([]porcupine.Operation{unknown(request{kind: deleteKey}), row.answered}, eventLog{3: {deletion}})
		if len(kept) != row.want {
			t.Errorf("beside %+v: %v", row.answered, kept)
		}
	}
	refused := porcupine.Operation{Input: request{kind: compareAndSwap, value: 1}, Output: response{revision: 2}}
	lost := porcupine.Operation{Input: request{kind: putKey, value: 9}, Output: response{revision: 3, succeeded: true}}
	twice := eventLog{2: {put(0, 1, 2)}, 3: {put(0, 1, 3)}}
	if _, problems := settledByLog([]porcupine.Operation{refused, lost}, twice); len(problems) != 3 {
		t.Errorf("%v", problems)
	}
}
