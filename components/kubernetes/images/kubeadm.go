//go:build kubeadm

package main

import (
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubeadmerrors "k8s.io/kubernetes/cmd/kubeadm/app/util/errors"
)

func init() {
	programs["kubeadm"] = func() { kubeadmerrors.HandleError(kubeadm.Run()) }
}
