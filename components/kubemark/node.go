package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	fake "k8s.io/cri-api/pkg/apis/testing"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	cadvisor "k8s.io/kubernetes/pkg/kubelet/cadvisor/testing"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/kubernetes/pkg/kubemark"
)

// What tells the nodes from real ones: pods ask for the label, and tolerate the taint.
const mark = "hollow"

const (
	port      = 10250
	maxPods   = 110
	openFiles = 10_000
)

type node struct {
	name, directory string
	address         netip.Addr
}

func (n node) certificates() string { return filepath.Join(n.directory, "pki") }
func (n node) kubeconfig() string   { return filepath.Join(n.directory, "kubeconfig") }

// run starts the kubelet, which goes on by itself. It speaks to the API server as a real one does: as protobuf, as often,
// with heartbeats that wait for nothing else, and with a request for the certificate that it serves.
func (n node) run(ctx context.Context, access *rest.Config) error {
	flags, config := kubemark.GetHollowKubeletConfig(&kubemark.HollowKubeletOptions{
		NodeName:           n.name,
		KubeletPort:        port,
		MaxPods:            maxPods,
		NodeLabels:         map[string]string{mark: "true"},
		RegisterWithTaints: []v1.Taint{{Key: mark, Value: "true", Effect: v1.TaintEffectNoSchedule}},
	})
	flags.NodeIP = n.address.String()
	flags.CertDirectory = n.certificates()
	config.Address = n.address.String()
	config.ServerTLSBootstrap = true
	// A file that is watched takes one of the few that the kernel lets a user watch.
	config.StaticPodPath = ""
	config.MaxOpenFiles = openFiles

	access.UserAgent = "hollow-kubelet"
	access.ContentType = runtime.ContentTypeProtobuf
	access.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	access.QPS = float32(config.KubeAPIQPS)
	access.Burst = int(config.KubeAPIBurst)
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return err
	}
	beats := *access
	beats.QPS = -1
	beats.Timeout = min(config.NodeStatusUpdateFrequency.Duration, time.Duration(config.NodeLeaseDurationSeconds)*time.Second)
	heartbeats, err := kubernetes.NewForConfig(&beats)
	if err != nil {
		return err
	}

	containers := fake.NewFakeRuntimeService()
	containers.FakeStatus = &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{
		{Type: cri.RuntimeReady, Status: true},
		{Type: cri.NetworkReady, Status: true},
	}}
	hollow := kubemark.NewHollowKubelet(flags, config, client, heartbeats, &cadvisor.Fake{NodeName: n.name},
		fake.NewFakeImageService(), containers, cm.NewStubContainerManager())
	if hollow.KubeletDeps.TLSOptions, err = kubeletapp.InitializeTLS(ctx, flags, config); err != nil {
		return err
	}
	server := &options.KubeletServer{KubeletFlags: *flags, KubeletConfiguration: *config}
	return kubeletapp.RunKubelet(ctx, server, hollow.KubeletDeps)
}

// addressAt counts from an address of IPv4 on.
func addressAt(start string, number int) (netip.Addr, error) {
	from, err := netip.ParseAddr(start)
	if err != nil || !from.Is4() {
		return netip.Addr{}, fmt.Errorf("cannot use --addresses=%s: want an address of IPv4", start)
	}
	bits := from.As4()
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(bits[:])+uint32(number)))), nil
}
