package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
)

/*
 * `cni network-apply` makes of the kernel's state what it reads on its standard input, and prints what it changed and what
 * it could not. Repeatable: what is as it should be is left alone.
 *
 *    vxlan      a device, and for each peer an entry of its forwarding database, neighbours and routes
 *    host-gw    routes alone
 *    none       neither
 *
 * Its own are the device, with all that is on it, and the routes with its protocol; only those are ever removed. Traffic follows
 * routes, so they are the last to come, and the first to be led elsewhere or to go.
 */

// routeProtocol marks our routes: ip route show proto 75.
const routeProtocol = 75

// inputLimit is for thousands of peers.
const inputLimit = 16 << 20

type wantedNetwork struct {
	Backend string        `json:"backend"`
	Device  *wantedDevice `json:"device"`
	Peers   []peer        `json:"peers"`
	// DeviceName is that of the device that is ours, wanted or not.
	DeviceName string `json:"deviceName"`
}

type peer struct {
	Name string `json:"name"`
	// Underlay and MAC are of vxlan alone.
	Underlay netip.Addr   `json:"underlay"`
	MAC      hardwareAddr `json:"mac"`
	Routes   []peerRoute  `json:"routes"`
}

type peerRoute struct {
	Range netip.Prefix `json:"range"`
	Via   netip.Addr   `json:"via"`
}

type hardwareAddr net.HardwareAddr

func (address *hardwareAddr) UnmarshalText(text []byte) error {
	parsed, err := net.ParseMAC(string(text))
	*address = hardwareAddr(parsed)
	return err
}

type failure struct {
	// Node is that of the peer; empty for what is of all.
	Node   string `json:"node,omitempty"`
	Reason string `json:"reason"`
}

type networkReport struct {
	Changed []string  `json:"changed"`
	Failed  []failure `json:"failed"`
}

func (report *networkReport) changed(format string, values ...any) {
	report.Changed = append(report.Changed, fmt.Sprintf(format, values...))
}

func (report *networkReport) failed(node string, err error) {
	report.Failed = append(report.Failed, failure{Node: node, Reason: err.Error()})
}

func applyNetwork() {
	report := networkReport{Changed: []string{}, Failed: []failure{}}
	var wanted wantedNetwork
	input, err := io.ReadAll(io.LimitReader(os.Stdin, inputLimit))
	if err == nil {
		err = json.Unmarshal(input, &wanted)
	}
	if err == nil {
		err = wanted.apply(&report)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot make the network between nodes: %v\n", err)
		os.Exit(1)
	}
	if err = json.NewEncoder(os.Stdout).Encode(report); err != nil {
		os.Exit(1)
	}
}

// apply fails as a whole where nothing could work; what is wrong with one peer is in the report, and spares the others.
func (wanted *wantedNetwork) apply(report *networkReport) error {
	var link netlink.Link
	switch wanted.Backend {
	case "vxlan":
		if wanted.Device == nil {
			return errors.New("no device is named for vxlan")
		}
		made, err := wanted.Device.ensure(wanted.DeviceName, report)
		if err != nil {
			return err
		}
		link = made
	case "host-gw", "none":
	default:
		return fmt.Errorf("the backend is %q; known are vxlan, host-gw and none", wanted.Backend)
	}
	own, err := ownRoutes()
	if err != nil {
		return err
	}
	overlay, err := readOverlay(link)
	if err != nil {
		return err
	}
	kept := map[netip.Prefix]bool{}
	for _, peer := range wanted.Peers {
		if link != nil {
			if err = overlay.ensurePeer(peer, report); err != nil {
				report.failed(peer.Name, err)
				continue
			}
		}
		for _, route := range peer.Routes {
			kept[route.Range] = true
			if err = ensureRoute(link, route, own, report); err != nil {
				report.failed(peer.Name, err)
				// What leads elsewhere than it should is worse than nothing.
				kept[route.Range] = own[route.Range].leadsTo(link, route)
			}
		}
	}
	removeRoutes(own, kept, report)
	overlay.removeOthers(wanted.Peers, report)
	if link == nil {
		return removeDevice(wanted.DeviceName, report)
	}
	return nil
}

type ownRoute struct {
	netlink.Route
	isThere bool
}

func (route ownRoute) leadsTo(link netlink.Link, wanted peerRoute) bool {
	if !route.isThere || !route.Gw.Equal(wanted.Via.AsSlice()) {
		return false
	}
	if link != nil {
		return route.LinkIndex == link.Attrs().Index
	}
	uplink, err := onLink(wanted.Via)
	return err == nil && route.LinkIndex == uplink
}

// ownRoutes are those of the main tables with our protocol.
func ownRoutes() (map[netip.Prefix]ownRoute, error) {
	own := map[netip.Prefix]ownRoute{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		filter := &netlink.Route{Protocol: routeProtocol, Table: syscall.RT_TABLE_MAIN}
		routes, err := netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil && !(family == netlink.FAMILY_V6 && errors.Is(err, syscall.EAFNOSUPPORT)) {
			return nil, fmt.Errorf("routes cannot be read: %w", err)
		}
		for _, route := range routes {
			if prefix, known := prefixOf(route.Dst); known {
				own[prefix] = ownRoute{Route: route, isThere: true}
			}
		}
	}
	return own, nil
}

func prefixOf(network *net.IPNet) (netip.Prefix, bool) {
	if network == nil {
		return netip.Prefix{}, false
	}
	address, isAddress := netip.AddrFromSlice(network.IP)
	ones, bits := network.Mask.Size()
	if address.Is4In6() && bits == 32 {
		address = address.Unmap()
	}
	return netip.PrefixFrom(address, ones), isAddress
}

func networkOf(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}

func familyOf(address netip.Addr) int {
	if address.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// onLink gives the interface on whose own network the address is.
func onLink(address netip.Addr) (int, error) {
	routes, err := netlink.RouteGet(address.AsSlice())
	if err != nil {
		return 0, fmt.Errorf("nothing leads to %s: %w", address, err)
	}
	for _, route := range routes {
		if route.Type == syscall.RTN_LOCAL {
			return 0, fmt.Errorf("%s is an address of this machine", address)
		}
		if len(route.Gw) > 0 && !route.Gw.Equal(address.AsSlice()) {
			return 0, fmt.Errorf("%s is behind the router %s: host-gw needs nodes on one network, vxlan does not", address, route.Gw)
		}
		return route.LinkIndex, nil
	}
	return 0, fmt.Errorf("nothing leads to %s", address)
}

func ensureRoute(link netlink.Link, wanted peerRoute, own map[netip.Prefix]ownRoute, report *networkReport) error {
	if !wanted.Range.IsValid() || wanted.Range.Bits() == 0 || wanted.Range != wanted.Range.Masked() || !wanted.Via.IsValid() {
		return fmt.Errorf("the route to %s by way of %s is none", wanted.Range, wanted.Via)
	}
	route := netlink.Route{Dst: networkOf(wanted.Range), Gw: wanted.Via.AsSlice(), Protocol: routeProtocol, Table: syscall.RT_TABLE_MAIN}
	if link != nil {
		route.LinkIndex = link.Attrs().Index
		route.Flags = int(netlink.FLAG_ONLINK)
	} else {
		uplink, err := onLink(wanted.Via)
		if err != nil {
			return err
		}
		route.LinkIndex = uplink
	}
	former := own[wanted.Range]
	if former.isThere && former.LinkIndex == route.LinkIndex && former.Gw.Equal(route.Gw) {
		return nil
	}
	others, err := netlink.RouteListFiltered(familyOf(wanted.Via), &netlink.Route{Dst: route.Dst, Table: syscall.RT_TABLE_MAIN}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("routes cannot be read: %w", err)
	}
	for _, other := range others {
		if other.Protocol != routeProtocol {
			return fmt.Errorf("somebody else has a route to %s (%s); remove it", wanted.Range, other.Protocol)
		}
	}
	// IPv6 takes no router on a link (ip6_route_check_nh_onlink) to which a route leads over another one.
	if former.isThere && wanted.Via.Is6() && former.LinkIndex != route.LinkIndex {
		if err = netlink.RouteDel(&former.Route); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("the former route to %s cannot be removed: %w", wanted.Range, err)
		}
	}
	if err = netlink.RouteReplace(&route); err != nil {
		return fmt.Errorf("the route to %s cannot be made: %w", wanted.Range, err)
	}
	report.changed("route to %s via %s on %s", wanted.Range, wanted.Via, nameOf(route.LinkIndex))
	return nil
}

func nameOf(index int) string {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Sprint(index)
	}
	return link.Attrs().Name
}

func removeRoutes(own map[netip.Prefix]ownRoute, kept map[netip.Prefix]bool, report *networkReport) {
	for prefix, route := range own {
		if kept[prefix] {
			continue
		}
		if err := netlink.RouteDel(&route.Route); err != nil && !errors.Is(err, syscall.ESRCH) {
			report.failed("", fmt.Errorf("the route to %s cannot be removed: %w", prefix, err))
			continue
		}
		report.changed("no route to %s any more", prefix)
	}
}

func removeDevice(name string, report *networkReport) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	// Of another kind it is somebody's own.
	if _, isOurs := link.(*netlink.Vxlan); !isOurs {
		return nil
	}
	if err = netlink.LinkDel(link); err != nil {
		return fmt.Errorf("the device %s cannot be removed: %w", name, err)
	}
	report.changed("no device %s any more", name)
	return nil
}
