// Package flannel is the plugin of pods' networks that flanneld leads between nodes: it makes of what flanneld has written
// (/run/flannel/subnet.env) the configuration of another plugin, by default a bridge with addresses of the Node's range, and calls that.
package flannel

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/utils/buildversion"
)

const (
	defaultSubnetFile = "/run/flannel/subnet.env"
	defaultDataDir    = "/var/lib/cni/flannel"
)

type object = map[string]any

type configuration struct {
	types.NetConf
	IPAM          object `json:"ipam"`
	SubnetFile    string `json:"subnetFile"`
	DataDir       string `json:"dataDir"`
	Delegate      object `json:"delegate"`
	RuntimeConfig object `json:"runtimeConfig"`
}

// What flanneld says of the Node.
type subnets struct {
	networks   []netip.Prefix
	ranges     []netip.Prefix
	mtu        int
	masquerade bool
}

func Main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Check: check, Del: del}, version.All, buildversion.BuildString("flannel"))
}

func read(stdin []byte) (configuration, error) {
	config := configuration{SubnetFile: defaultSubnetFile, DataDir: defaultDataDir}
	if err := json.Unmarshal(stdin, &config); err != nil {
		return config, fmt.Errorf("cannot read the configuration of flannel: %w", err)
	}
	for _, key := range []string{"name", "ipam"} {
		if _, given := config.Delegate[key]; given {
			return config, fmt.Errorf("cannot use delegate.%s of the configuration of flannel: leave it out", key)
		}
	}
	if plugin, given := config.Delegate["type"]; given {
		if _, isText := plugin.(string); !isText {
			return config, errors.New("cannot use delegate.type of the configuration of flannel: want the name of a plugin")
		}
	}
	return config, nil
}

func readSubnets(file string) (subnets, error) {
	var found subnets
	content, err := os.Open(file)
	if err != nil {
		return found, fmt.Errorf("cannot read what flanneld writes, is it running? %w", err)
	}
	defer content.Close()
	lines := bufio.NewScanner(content)
	for lines.Scan() {
		name, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		var err error
		switch name {
		case "FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK":
			err = addPrefixes(&found.networks, value)
		case "FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET":
			err = addPrefixes(&found.ranges, value)
		case "FLANNEL_MTU":
			found.mtu, err = strconv.Atoi(value)
		case "FLANNEL_IPMASQ":
			found.masquerade, err = strconv.ParseBool(value)
		}
		if err != nil {
			return found, fmt.Errorf("cannot read %s: %s: %w", file, name, err)
		}
	}
	if err := lines.Err(); err != nil {
		return found, fmt.Errorf("cannot read %s: %w", file, err)
	}
	if len(found.networks) == 0 || len(found.ranges) == 0 || found.mtu == 0 {
		return found, fmt.Errorf("cannot use %s: it lacks FLANNEL_NETWORK, FLANNEL_SUBNET or FLANNEL_MTU", file)
	}
	return found, nil
}

func addPrefixes(list *[]netip.Prefix, text string) error {
	for one := range strings.SplitSeq(text, ",") {
		prefix, err := netip.ParsePrefix(one)
		if err != nil {
			return err
		}
		*list = append(*list, prefix.Masked())
	}
	return nil
}

// delegate is the configuration of the plugin that does the work. What the user has given for it stays.
func delegate(config configuration, found subnets) object {
	made := object{"type": "bridge", "mtu": found.mtu, "ipMasq": !found.masquerade}
	for key, value := range config.Delegate {
		made[key] = value
	}
	if _, given := made["isGateway"]; !given && made["type"] == "bridge" {
		made["isGateway"] = true
	}
	made["name"] = config.Name
	made["cniVersion"] = config.CNIVersion
	if len(config.RuntimeConfig) > 0 {
		made["runtimeConfig"] = config.RuntimeConfig
	}
	addresses := object{"type": "host-local"}
	for key, value := range config.IPAM {
		addresses[key] = value
	}
	var ranges [][]object
	for _, one := range found.ranges {
		ranges = append(ranges, []object{{"subnet": one.String()}})
	}
	addresses["ranges"] = ranges
	routes, _ := addresses["routes"].([]any)
	for _, network := range found.networks {
		routes = append(routes, object{"dst": network.String()})
	}
	addresses["routes"] = routes
	made["ipam"] = addresses
	return made
}

// What an interface of a container was made by is kept until it is gone: flanneld may have written another range by then, or have ended.
func kept(config configuration, args *skel.CmdArgs) string {
	return filepath.Join(config.DataDir, filepath.Base(args.ContainerID+"-"+args.IfName))
}

func add(args *skel.CmdArgs) error {
	config, err := read(args.StdinData)
	if err != nil {
		return err
	}
	found, err := readSubnets(config.SubnetFile)
	if err != nil {
		return err
	}
	made := delegate(config, found)
	content, err := json.Marshal(made)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(config.DataDir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(kept(config, args), content, 0o600); err != nil {
		return err
	}
	result, err := invoke.DelegateAdd(context.Background(), made["type"].(string), content, nil)
	if err != nil {
		return fmt.Errorf("%v: %w", made["type"], err)
	}
	return result.Print()
}

// withKept calls what does the work for a container that was added, as it was added. One that is not known is gone.
func withKept(args *skel.CmdArgs, call func(plugin string, content []byte, file string) error) error {
	config, err := read(args.StdinData)
	if err != nil {
		return err
	}
	file := kept(config, args)
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var made object
	if err := json.Unmarshal(content, &made); err != nil {
		return fmt.Errorf("cannot read %s: %w", file, err)
	}
	plugin, _ := made["type"].(string)
	if config.RawPrevResult != nil {
		made["prevResult"] = config.RawPrevResult
	}
	if content, err = json.Marshal(made); err != nil {
		return err
	}
	return call(plugin, content, file)
}

func check(args *skel.CmdArgs) error {
	return withKept(args, func(plugin string, content []byte, _ string) error {
		return invoke.DelegateCheck(context.Background(), plugin, content, nil)
	})
}

func del(args *skel.CmdArgs) error {
	return withKept(args, func(plugin string, content []byte, file string) error {
		if err := invoke.DelegateDel(context.Background(), plugin, content, nil); err != nil {
			return err
		}
		return os.Remove(file)
	})
}
