// Command kubemark is many nodes without containers: upstream's hollow kubelets, each with an identity, an address and
// certificates of its own. `make bench-scale` joins them.
//
//	kubemark --bootstrap-kubeconfig=FILE --directory=DIRECTORY --addresses=10.89.4.0 --first=1 --count=25
//
// It runs until it is told to stop, or one of them cannot join.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/kubernetes/pkg/kubelet/certificate/bootstrap"
)

type given struct {
	bootstrapKubeconfig, directory, addresses string
	first, count                              int
}

func main() {
	var to given
	flag.StringVar(&to.bootstrapKubeconfig, "bootstrap-kubeconfig", "", "what they ask for certificates with")
	flag.StringVar(&to.directory, "directory", "", "each has one of its own in it")
	flag.StringVar(&to.addresses, "addresses", "", "node N has the Nth address after this one")
	flag.IntVar(&to.first, "first", 1, "the number of the first node")
	flag.IntVar(&to.count, "count", 1, "how many nodes")
	flag.Parse()
	// Each kubelet would register the metrics of its process anew. Nobody reads them here.
	legacyregistry.RawMustRegister = func(...prometheus.Collector) {}
	legacyregistry.MustRegister = func(all ...metrics.Registerable) {
		for _, one := range all {
			_ = legacyregistry.Register(one)
		}
	}
	if err := run(to); err != nil {
		fmt.Fprintln(os.Stderr, "kubemark:", err)
		os.Exit(1)
	}
}

func run(to given) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed := make(chan error, to.count)
	for number := to.first; number < to.first+to.count; number++ {
		go func() {
			if err := join(ctx, to, number); err != nil {
				failed <- fmt.Errorf("node %d: %w", number, err)
			}
		}()
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// A kubelet sets things of its process when it starts.
var starting sync.Mutex

// join does what a kubelet does with --bootstrap-kubeconfig.
func join(ctx context.Context, to given, number int) error {
	address, err := addressAt(to.addresses, number)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%d", mark, number)
	joining := node{name: name, directory: filepath.Join(to.directory, name), address: address}
	if err := os.MkdirAll(joining.certificates(), 0o700); err != nil {
		return err
	}
	err = bootstrap.LoadClientCert(ctx, joining.kubeconfig(), to.bootstrapKubeconfig, joining.certificates(), types.NodeName(name))
	if err != nil {
		return err
	}
	access, err := clientcmd.BuildConfigFromFlags("", joining.kubeconfig())
	if err != nil {
		return err
	}
	starting.Lock()
	defer starting.Unlock()
	return joining.run(ctx, access)
}
