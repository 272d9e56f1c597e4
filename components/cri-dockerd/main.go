// Command cri-dockerd serves the CRI on a Docker Engine. Upstream's own main package takes the whole of an API server's library for
// one function: two signals.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/Mirantis/cri-dockerd/cmd"
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	stop := make(chan struct{})
	go func() {
		<-signals
		close(stop)
		<-signals
		os.Exit(1)
	}()
	if err := cmd.NewDockerCRICommand(stop).Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
