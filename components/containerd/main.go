// Command containerd is the daemon, its client ctr and the CRI's client crictl in one file; the name that it is called by picks
// the program. The shim is a binary of its own: one runs for each pod, and loaded as part of this file it
// would carry the daemon's packages, and its plugin registry, into every pod.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	daemon "github.com/containerd/containerd/v2/cmd/containerd/command"
	client "github.com/containerd/containerd/v2/cmd/ctr/app"
	"sigs.k8s.io/cri-tools/cmd/crictl"
)

func main() {
	name := filepath.Base(os.Args[0])
	ctx := context.Background()
	var err error
	switch name {
	case "containerd":
		err = daemon.App().Run(ctx, os.Args)
	case "crictl":
		crictl.Main()
	case "ctr":
		err = client.New().Run(ctx, os.Args)
	default:
		fmt.Fprintf(os.Stderr, "cannot run %q: call this file as containerd, ctr or crictl\n", name)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, err)
		os.Exit(1)
	}
}
