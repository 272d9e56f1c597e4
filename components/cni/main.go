// Command cni is the network plugins of the Container Network Interface in one file; the name that it is
// called by picks the plugin. Upstream ships each as a program: scripts/build-component.sh turns their main
// packages into importable ones in the vendored copy (package main -> package bridge, main() -> Main()).
package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	hostlocal "github.com/containernetworking/plugins/plugins/ipam/host-local"
	"github.com/containernetworking/plugins/plugins/ipam/static"
	"github.com/containernetworking/plugins/plugins/main/bridge"
	hostdevice "github.com/containernetworking/plugins/plugins/main/host-device"
	"github.com/containernetworking/plugins/plugins/main/ipvlan"
	"github.com/containernetworking/plugins/plugins/main/loopback"
	"github.com/containernetworking/plugins/plugins/main/macvlan"
	"github.com/containernetworking/plugins/plugins/main/ptp"
	"github.com/containernetworking/plugins/plugins/main/vlan"
	"github.com/containernetworking/plugins/plugins/meta/bandwidth"
	"github.com/containernetworking/plugins/plugins/meta/firewall"
	"github.com/containernetworking/plugins/plugins/meta/portmap"
	"github.com/containernetworking/plugins/plugins/meta/tuning"
	"github.com/vishvananda/netlink"
	"k8s/components/cni/flannel"
)

var plugins = map[string]func(){
	"bandwidth":   bandwidth.Main,
	"bridge":      bridge.Main,
	"firewall":    firewall.Main,
	"flannel":     flannel.Main,
	"host-device": hostdevice.Main,
	"host-local":  hostlocal.Main,
	"ipvlan":      ipvlan.Main,
	"loopback":    loopback.Main,
	"macvlan":     macvlan.Main,
	"portmap":     portmap.Main,
	"ptp":         ptp.Main,
	"static":      static.Main,
	"tuning":      tuning.Main,
	"vlan":        vlan.Main,
}

// deleteLink is `cni link-delete NAME`: the plugins make a bridge and never remove it, and a machine need not have ip(8).
func deleteLink(name string) {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot delete the network interface %s: %v\n", name, err)
		os.Exit(1)
	}
}

// changeAddress is `cni address-hold|address-release ADDRESS`: the Node's address on lo while no network brings it. It is of this
// machine alone (scope host; deprecated, for IPv6), so that nothing is sent from it. Repeatable.
func changeAddress(action, text string) {
	address, err := netip.ParseAddr(text)
	if err == nil {
		err = setAddress(address, action == "address-hold")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot change the addresses of lo: %s %s: %v\n", action, text, err)
		os.Exit(1)
	}
}

func setAddress(address netip.Addr, held bool) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	network := &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(address.BitLen(), address.BitLen())}
	entry := &netlink.Addr{IPNet: network, Scope: int(netlink.SCOPE_HOST)}
	if address.Is6() {
		entry.ValidLft = math.MaxUint32
	}
	if held {
		return netlink.AddrReplace(lo, entry)
	}
	if err = netlink.AddrDel(lo, entry); errors.Is(err, syscall.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "link-delete" {
		deleteLink(os.Args[2])
		return
	}
	if len(os.Args) == 3 && (os.Args[1] == "address-hold" || os.Args[1] == "address-release") {
		changeAddress(os.Args[1], os.Args[2])
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "network-apply" {
		applyNetwork()
		return
	}
	name := filepath.Base(os.Args[0])
	run, known := plugins[name]
	if !known {
		names := make([]string, 0, len(plugins))
		for plugin := range plugins {
			names = append(names, plugin)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "cannot run %q: call this file as one of %s\n", name, strings.Join(names, ", "))
		os.Exit(2)
	}
	run()
}
