package localpathprovisioner

import (
	"context"
	"fmt"
	"strings"

	"github.com/Sirupsen/logrus"
	v1 "k8s.io/api/core/v1"
	k8serror "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// checkReady says why nothing can be done on a Node now. A helper pod would be waited for in vain, and the volumes of other Nodes with it.
func checkReady(node *v1.Node) error {
	if node == nil {
		return nil
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == v1.NodeReady && condition.Status == v1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("the Node %v is not ready; it is tried again", node.Name)
}

// nodeOf returns the name of the Node that has a volume, which its host name need not be, and whether that Node is gone from the
// cluster, and with it what the volume held. An error: nothing can be done there now.
func (p *LocalPathProvisioner) nodeOf(pv *v1.PersistentVolume, hostname string) (name string, isGone bool, err error) {
	name = pv.Annotations[nodeNameAnnotationKey]
	if name == "" || hostname == "" {
		name = hostname
	}
	if name == "" {
		return "", false, nil
	}
	node, err := p.kubeClient.CoreV1().Nodes().Get(context.TODO(), name, metav1.GetOptions{})
	if k8serror.IsNotFound(err) {
		logrus.Infof("Volume %v goes without its directory, as the Node %v is gone", pv.Name, name)
		return name, true, nil
	}
	if err != nil {
		return "", false, err
	}
	return name, false, checkReady(node)
}

// failureOf says why a helper pod failed, in its own last words if it has any.
func failureOf(pod *v1.Pod) error {
	reason := strings.TrimSpace(pod.Status.Reason + " " + pod.Status.Message)
	for _, container := range pod.Status.ContainerStatuses {
		if ended := container.State.Terminated; ended != nil {
			reason = strings.TrimSpace(fmt.Sprintf("%v (exit code %v)", strings.TrimSpace(ended.Message), ended.ExitCode))
		}
	}
	return fmt.Errorf("on the Node %v: %v", pod.Spec.NodeName, reason)
}
