// Command images is what images of Kubernetes' nodes run. The build's tags say which of the programs are in the file, so that an
// image has those it is for; the name that it is called by picks one of them.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// Each file with a tag adds its own.
var programs = map[string]func(){}

func daemon(command func() *cobra.Command) func() {
	return func() { os.Exit(cli.Run(command())) }
}

func main() {
	name := filepath.Base(os.Args[0])
	run, known := programs[name]
	if !known {
		names := slices.Sorted(maps.Keys(programs))
		fmt.Fprintf(os.Stderr, "cannot run %q: call this file as %s\n", name, strings.Join(names, " or "))
		os.Exit(2)
	}
	run()
}
