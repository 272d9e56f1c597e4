package etcd

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The two servers that every case runs against: etcd itself, by which a wrong expectation shows, and
// this project's datastore.
const (
	etcd = "etcd"
	k8s  = "k8s"
)

var kinds = []string{etcd, k8s}

// A server, and the revision that a test's own revisions are counted from.
type server struct {
	kind    string
	address string
	conn    *grpc.ClientConn
	base    int64
	process *exec.Cmd
}

// How each server says where it listens.
var listening = map[string]*regexp.Regexp{
	etcd: regexp.MustCompile(`"serving client traffic.*"address":"([^"]+)"`),
	k8s:  regexp.MustCompile(`^serving on http://(\S+)`),
}

const startLimit = time.Minute

func command(kind, directory string, flags []string) *exec.Cmd {
	if kind == etcd {
		fixed := []string{
			"--data-dir", directory,
			"--listen-client-urls", "http://127.0.0.1:0", "--advertise-client-urls", "http://127.0.0.1:0",
			"--listen-peer-urls", "http://127.0.0.1:0",
		}
		return exec.Command(os.Getenv("ETCD"), append(fixed, flags...)...)
	}
	words := strings.Fields(os.Getenv("DATASTORE"))
	return exec.Command(words[0], append(append(words[1:], "--data-dir", directory), flags...)...)
}

// start runs a server on an empty directory; flags are those of its kind.
func start(t testing.TB, kind string, flags map[string][]string) *server {
	t.Helper()
	process := command(kind, t.TempDir(), flags[kind])
	// A server must not outlive a test that is killed.
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	process.Stderr = process.Stdout
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	ended := make(chan struct{})
	var log []string
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(output)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			log = append(log, lines.Text())
			if match := listening[kind].FindStringSubmatch(lines.Text()); match != nil {
				address <- match[1]
			}
		}
	}()
	t.Cleanup(func() {
		process.Process.Signal(syscall.SIGTERM)
		stopped := time.AfterFunc(startLimit, func() { process.Process.Kill() })
		<-ended
		process.Wait()
		stopped.Stop()
		if t.Failed() {
			t.Logf("the last lines of %s:\n%s", kind, strings.Join(log[max(0, len(log)-5):], "\n"))
		}
	})
	select {
	case found := <-address:
		return connect(t, kind, found, process)
	case <-ended:
		t.Fatalf("%s ended at its start:\n%s", kind, strings.Join(log, "\n"))
	case <-time.After(startLimit):
		t.Fatalf("%s did not start in %s", kind, startLimit)
	}
	return nil
}

const largestMessageBytes = 256 << 20

func connect(t testing.TB, kind, address string, process *exec.Cmd) *server {
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestMessageBytes)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &server{kind: kind, address: address, conn: conn, process: process}
}

// The servers that tests share, one of each kind.
var shared = map[string]*server{}

func TestMain(m *testing.M) {
	os.Exit(m.Run())
}

// TestAll runs every case on two servers that they share: each case starts from no keys and no leases,
// and counts its revisions from what it finds.
func TestAll(t *testing.T) {
	for _, kind := range kinds {
		shared[kind] = start(t, kind, nil)
	}
	for _, group := range groups {
		t.Run(group.name, func(t *testing.T) {
			for _, kind := range kinds {
				t.Run(kind, func(t *testing.T) {
					t.Parallel()
					s := *shared[kind]
					s.empty(t)
					group.run(t, &s)
				})
			}
		})
	}
}

// onEach runs a test on a server of its own, of each kind.
func onEach(t *testing.T, flags map[string][]string, run func(t *testing.T, s *server)) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			run(t, start(t, kind, flags))
		})
	}
}

// empty removes all keys and leases, and counts revisions from there.
func (s *server) empty(t testing.TB) {
	t.Helper()
	ctx := deadline(t)
	leases, err := pb.NewLeaseClient(s.conn).LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, lease := range leases.Leases {
		pb.NewLeaseClient(s.conn).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease.ID})
	}
	deleted, err := pb.NewKVClient(s.conn).DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	s.base = deleted.Header.Revision
}

const callLimit = 20 * time.Second

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	t.Cleanup(cancel)
	return ctx
}
