// Command kubernetes is the six Kubernetes programs, etcd and what restores its snapshots in one file. The name that it is called by picks
// the program, so a process list reads as it does with upstream's binaries and shared packages are
// packed only once.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
	_ "time/tzdata" // time zones of CronJobs on machines without tzdata

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.uber.org/zap"
	encryption "k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// Commands are built only when called: each registers its flags when it is made.
var daemons = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"kube-proxy":              proxy.NewProxyCommand,
}

// How often kube-apiserver looks whether its encryption configuration has changed: upstream's minute makes a rotation of
// keys, which waits for it twice, a matter of minutes.
const encryptionPollInterval = 10 * time.Second

func main() {
	encryption.EncryptionConfigFileChangePollDuration = encryptionPollInterval
	name := filepath.Base(os.Args[0])
	switch name {
	case "kubectl":
		runKubectl()
		return
	case "etcd":
		etcdmain.Main(os.Args)
		return
	case "etcd-restore":
		if err := restoreEtcd(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	newCommand, known := daemons[name]
	if !known {
		fmt.Fprintf(os.Stderr, "cannot run %q: call this file as kube-apiserver, kube-controller-manager, "+
			"kube-scheduler, kubelet, kube-proxy, kubectl, etcd or etcd-restore\n", name)
		os.Exit(2)
	}
	os.Exit(cli.Run(newCommand()))
}

// runKubectl follows cmd/kubectl/kubectl.go: kubectl reads -v before cobra does and prints its own errors.
func runKubectl() {
	logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

// restoreEtcd makes the data of the only member of a new etcd from a snapshot, as `etcdutl snapshot restore` does. The revision
// may go on beyond what clients can have seen; all before it counts as compacted then.
func restoreEtcd() error {
	var given snapshot.RestoreConfig
	var peerURL string
	flag.StringVar(&given.SnapshotPath, "snapshot", "", "the file, with its digest")
	flag.StringVar(&given.OutputDataDir, "data-dir", "", "the directory that is made")
	flag.StringVar(&given.Name, "name", "", "the name of the member")
	flag.StringVar(&peerURL, "peer-url", "", "where other members reach it")
	flag.StringVar(&given.InitialClusterToken, "token", "", "what the id of the cluster comes from, with the URL")
	flag.Uint64Var(&given.RevisionBump, "bump-revision", 0, "how far the revision goes on")
	flag.Parse()
	given.PeerURLs = []string{peerURL}
	given.InitialCluster = given.Name + "=" + peerURL
	given.MarkCompacted = given.RevisionBump > 0
	log := zap.NewProductionConfig()
	log.Level = zap.NewAtomicLevelAt(zap.ErrorLevel)
	logger, err := log.Build()
	if err != nil {
		return err
	}
	return snapshot.NewV3(logger).Restore(given)
}
