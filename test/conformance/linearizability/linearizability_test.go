package linearizability

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	clients     = 8
	trafficTime = 20 * time.Second
	checkLimit  = 30 * time.Second
)

// A server that is killed and started again on its directory and port.
type server struct {
	directory string
	port      int
	process   *exec.Cmd
}

func (s *server) start(t *testing.T) {
	t.Helper()
	words := strings.Fields(os.Getenv("DATASTORE"))
	flags := []string{"--data-dir", s.directory, "--port", fmt.Sprint(s.port)}
	s.process = run(t, words[0], append(words[1:], flags...)...)
}

// run starts a program that ends with the test, and waits until it says that it serves.
func run(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	process := exec.Command(program, args...)
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	process.Stderr = os.Stderr
	output, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil || !strings.HasPrefix(line, "serving on") {
		t.Fatalf("the server did not start: %q %v", line, err)
	}
	return process
}

func (s *server) stop(signal os.Signal) {
	s.process.Process.Signal(signal)
	s.process.Wait()
}

func freePort(t *testing.T) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func (s *server) connect(t *testing.T) *grpc.ClientConn {
	return connect(t, fmt.Sprintf("127.0.0.1:%d", s.port))
}

func connect(t *testing.T, target string) *grpc.ClientConn {
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// What waits for a server was not sent; it is not unknown whether it happened.
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1, MaxDelay: 20 * time.Millisecond}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestLinearizability lets clients and watchers work through kills and restarts, and checks what they saw.
func TestLinearizability(t *testing.T) {
	s := &server{directory: t.TempDir(), port: freePort(t)}
	s.start(t)
	defer func() { s.stop(syscall.SIGTERM) }()

	traffic, endTraffic := context.WithTimeout(context.Background(), trafficTime)
	defer endTraffic()
	watching, endWatching := context.WithCancel(context.Background())
	defer endWatching()
	history := &history{started: time.Now()}
	var working, followers sync.WaitGroup
	for id := range clients {
		conn := s.connect(t)
		working.Go(func() { history.run(traffic, id, conn, true) })
	}
	watchers := newWatchers()
	for _, w := range watchers {
		conn := s.connect(t)
		followers.Go(func() { w.follow(watching, conn) })
	}

	var restarts []int64
	for traffic.Err() == nil {
		time.Sleep(time.Duration(500+rand.IntN(2500)) * time.Millisecond)
		signal := syscall.SIGKILL
		if len(restarts)%4 == 3 {
			signal = syscall.SIGTERM
		}
		s.stop(signal)
		s.start(t)
		restarts = append(restarts, history.now())
	}
	working.Wait()

	newest, log := readLog(t, s.connect(t))
	waitFor(watchers, newest)
	endWatching()
	followers.Wait()
	t.Logf("%d operations, %d revisions, %d restarts", len(history.operations), newest, len(restarts))
	if len(history.operations) < 2000 || newest < 1000 || len(restarts) < 5 {
		t.Error("that is too little to be of use")
	}

	operations, problems := settled(history.operations, log, restarts)
	judge(t, operations, append(problems, log.problems(newest, watchers)...))
}

// judge fails the test if there are problems, or if what clients saw is not linearizable.
func judge(t *testing.T, operations []porcupine.Operation, problems []string) {
	for _, problem := range problems {
		t.Error(problem)
	}
	if result := porcupine.CheckOperationsTimeout(model, operations, checkLimit); result != porcupine.Ok {
		t.Errorf("the history is not linearizable: %s", result)
		saveHistory(t, operations)
	}
}

// readLog reads the events of all revisions from the server as it is in the end.
func readLog(t *testing.T, conn *grpc.ClientConn) (int64, eventLog) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	current, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	newest := current.Header.Revision
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte(prefix), RangeEnd: []byte(afterPrefix), StartRevision: 1, PrevKv: true}
	stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
	log := eventLog{}
	for len(log[newest]) == 0 {
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range response.Events {
			log[event.Kv.ModRevision] = append(log[event.Kv.ModRevision], event)
		}
	}
	return newest, log
}

// settled leaves out the writes that got no answer and did not happen, as the log shows: values are unique.
// What else got no answer happened before the server was started again, or never. Each write that was
// acknowledged must be in the log at its revision.
func settled(operations []porcupine.Operation, log eventLog, restarts []int64) ([]porcupine.Operation, []string) {
	revisionOf := map[int64]int64{}
	for revision, events := range log {
		for _, event := range events {
			revisionOf[cellOf(event.Kv).value] = revision
		}
	}
	var kept []porcupine.Operation
	var problems []string
	for _, operation := range operations {
		r, out := operation.Input.(request), operation.Output.(response)
		revision := int64(0)
		if r.value != 0 {
			revision = revisionOf[r.value]
		}
		if out.isUnknown {
			next, _ := slices.BinarySearch(restarts, operation.Return)
			out.revision = revision
			operation.Output = out
			if operation.Return = math.MaxInt64; next < len(restarts) {
				operation.Return = restarts[next]
			}
		} else if r.value != 0 && out.succeeded && revision != out.revision {
			problems = append(problems, fmt.Sprintf("%+v was acknowledged at revision %d and is at %d", r, out.revision, revision))
		}
		if r.value == 0 || !out.isUnknown || revision != 0 {
			kept = append(kept, operation)
		}
	}
	return kept, problems
}

// saveHistory writes porcupine's picture of a history that is wrong beside the suite's output.
func saveHistory(t *testing.T, operations []porcupine.Operation) {
	_, info := porcupine.CheckOperationsVerbose(model, operations, checkLimit)
	if err := porcupine.VisualizePath(model, info, os.Getenv("HISTORY")); err != nil {
		t.Error(err)
	}
}

// TestModel shows that the checker would notice: a stale read, a write that is lost, and one that is seen by half.
func TestModel(t *testing.T) {
	put := porcupine.Operation{
		Input: request{kind: putTwo, value: 1}, Call: 0,
		Output: response{succeeded: true, revision: 2}, Return: 10,
	}
	written := cell{value: 1, create: 2, mod: 2, version: 1}
	for name, row := range map[string]struct {
		read response
		want bool
	}{
		"fresh": {response{succeeded: true, revision: 2, cells: [keyCount]cell{written, written}}, true},
		"stale": {response{succeeded: true, revision: 1}, false},
		"lost":  {response{succeeded: true, revision: 2}, false},
		"half":  {response{succeeded: true, revision: 2, cells: [keyCount]cell{written}}, false},
	} {
		list := porcupine.Operation{Input: request{kind: listKeys}, Call: 20, Output: row.read, Return: 30}
		if got := porcupine.CheckOperations(model, []porcupine.Operation{put, list}); got != row.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
