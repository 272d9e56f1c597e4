#!/bin/bash
# The components of a node started by hand: what bench/start compares the daemon with. prepare-bare.ts
# has made the certificates, kubeconfigs and configuration files; each component starts as soon as what it
# needs is there.
#
#   bare.sh DIRECTORY BINARIES ETCD PAUSE_ARCHIVE READY_FILE [FLAG_OF_THE_KUBELET...]
#
# READY_FILE appears when /readyz of the API server answers; the observer of the benchmark, which asks for
# that anyway, makes it.
set -euo pipefail

readonly directory=$1 binaries=$2 etcd=$3 pause=$4 ready=$5
readonly pki=$directory/pki kubeconfig=$directory/kubeconfig etc=$directory/etc run=$directory/run
readonly containerd_socket=$run/containerd/containerd.sock
export PATH=$binaries:$PATH
# An interrupted shell takes everything along.
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT

start() {
  local name=$1
  shift
  "$@" >"$directory/$name.log" 2>&1 &
}

start etcd "$etcd" --data-dir="$directory/etcd" --listen-client-urls=http://127.0.0.1:2379 \
  --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380 --logger=zap --log-level=warn

start containerd containerd --config="$etc/containerd.toml"

# It waits for etcd by itself.
start kube-apiserver kube-apiserver \
  --advertise-address=10.89.0.2 --allow-privileged --anonymous-auth=true --authorization-mode=Node,RBAC --bind-address=0.0.0.0 \
  --client-ca-file="$pki/client-ca.crt" --enable-admission-plugins=NodeRestriction \
  --encryption-provider-config="$pki/encryption-config.yaml" --etcd-servers=http://127.0.0.1:2379 \
  --kubelet-certificate-authority="$pki/server-ca.crt" --kubelet-client-certificate="$pki/apiserver-kubelet-client.crt" \
  --kubelet-client-key="$pki/apiserver-kubelet-client.key" --kubelet-preferred-address-types=InternalIP --profiling=false \
  --proxy-client-cert-file="$pki/front-proxy-client.crt" --proxy-client-key-file="$pki/front-proxy-client.key" \
  --requestheader-allowed-names=front-proxy-client --requestheader-client-ca-file="$pki/request-header-ca.crt" \
  --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
  --requestheader-username-headers=X-Remote-User --secure-port=6443 \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-account-key-file="$pki/service-account.pub" \
  --service-account-signing-key-file="$pki/service-account.key" --service-cluster-ip-range=10.96.0.0/12 \
  --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key"

until [[ -S $containerd_socket ]]; do sleep 0.02; done
start import ctr --address="$containerd_socket" --namespace=k8s.io images import "$pause"

until [[ -e $ready ]]; do sleep 0.02; done

start kube-controller-manager kube-controller-manager \
  --allocate-node-cidrs --authentication-kubeconfig="$kubeconfig/kube-controller-manager.kubeconfig" \
  --authorization-kubeconfig="$kubeconfig/kube-controller-manager.kubeconfig" --bind-address=127.0.0.1 --cluster-cidr=10.244.0.0/16 \
  --kubeconfig="$kubeconfig/kube-controller-manager.kubeconfig" --leader-elect=false --profiling=false \
  --root-ca-file="$pki/server-ca.crt" --service-account-private-key-file="$pki/service-account.key" \
  --service-cluster-ip-range=10.96.0.0/12 --use-service-account-credentials

start kube-scheduler kube-scheduler \
  --authentication-kubeconfig="$kubeconfig/kube-scheduler.kubeconfig" \
  --authorization-kubeconfig="$kubeconfig/kube-scheduler.kubeconfig" --bind-address=127.0.0.1 \
  --kubeconfig="$kubeconfig/kube-scheduler.kubeconfig" --leader-elect=false --profiling=false

start kubelet kubelet --config="$etc/kubelet.yaml" --kubeconfig="$kubeconfig/kubelet.kubeconfig" --node-ip=10.89.0.2 "${@:6}"

mapfile -t proxy_flags <"$etc/kube-proxy.flags"
start kube-proxy kube-proxy "${proxy_flags[@]}"

wait
