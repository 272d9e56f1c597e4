package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/vishvananda/netlink"
)

// What vxlan puts around a packet: its header, UDP, IP and an Ethernet header.
const (
	overheadIPv4 = 50
	overheadIPv6 = 70
)

// defaultMTU is of an uplink that is not known.
const defaultMTU = 1500

type wantedDevice struct {
	// Address is the Node's, from which it sends.
	Address netip.Addr   `json:"address"`
	MAC     hardwareAddr `json:"mac"`
	VNI     int          `json:"vni"`
	Port    int          `json:"port"`
	// ChecksumOffload leaves checksums to the network card.
	ChecksumOffload bool `json:"checksumOffload"`
	// Own are the addresses that this machine has for pods of others.
	Own []netip.Addr `json:"own"`
}

// ensure makes the device, or mends it; one with which that cannot be done is made anew. One that is not whole does not stay.
func (wanted *wantedDevice) ensure(name string, report *networkReport) (netlink.Link, error) {
	mtu := wanted.mtu()
	link, err := netlink.LinkByName(name)
	if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, err
	}
	if err == nil {
		former, isVxlan := link.(*netlink.Vxlan)
		if !isVxlan {
			return nil, fmt.Errorf("the interface %s is somebody else's, of type %s: remove or rename it", name, link.Type())
		}
		if wanted.isLike(former) {
			return link, wanted.complete(link, mtu, report)
		}
		if err = netlink.LinkDel(link); err != nil {
			return nil, fmt.Errorf("the device %s, which has other settings, cannot be removed: %w", name, err)
		}
		report.changed("no device %s with its former settings any more", name)
	}
	vxlan := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu, HardwareAddr: net.HardwareAddr(wanted.MAC), TxQLen: -1},
		VxlanId:   wanted.VNI,
		SrcAddr:   wanted.Address.AsSlice(),
		Port:      wanted.Port,
		Learning:  false,
	}
	if err = netlink.LinkAdd(vxlan); err != nil {
		return nil, explain(name, wanted, err)
	}
	if link, err = netlink.LinkByName(name); err == nil {
		report.changed("device %s, mtu %d, from %s", name, mtu, wanted.Address)
		err = wanted.complete(link, mtu, report)
	}
	if err != nil {
		_ = netlink.LinkDel(vxlan)
		return nil, err
	}
	return link, nil
}

func explain(name string, wanted *wantedDevice, err error) error {
	switch {
	case errors.Is(err, syscall.EEXIST):
		return fmt.Errorf("the device %s cannot be made: another vxlan device of this machine has VNI %d and port %d (flannel?); remove it", name, wanted.VNI, wanted.Port)
	case errors.Is(err, syscall.EOPNOTSUPP):
		return fmt.Errorf("the device %s cannot be made: this kernel has no vxlan; use --network-backend=host-gw", name)
	}
	return fmt.Errorf("the device %s cannot be made: %w", name, err)
}

func (wanted *wantedDevice) isLike(link *netlink.Vxlan) bool {
	return link.VxlanId == wanted.VNI && link.Port == wanted.Port && !link.Learning && link.VtepDevIndex == 0 &&
		link.SrcAddr.Equal(wanted.Address.AsSlice()) && bytes.Equal(link.HardwareAddr, wanted.MAC)
}

// mtu is that of the interface which has the Node's address, less what goes around a packet.
func (wanted *wantedDevice) mtu() int {
	overhead := overheadIPv4
	if wanted.Address.Is6() {
		overhead = overheadIPv6
	}
	uplink := defaultMTU
	if addresses, err := netlink.AddrList(nil, familyOf(wanted.Address)); err == nil {
		for _, address := range addresses {
			if !address.IP.Equal(wanted.Address.AsSlice()) {
				continue
			}
			if link, err := netlink.LinkByIndex(address.LinkIndex); err == nil && link.Attrs().Flags&net.FlagLoopback == 0 {
				uplink = link.Attrs().MTU
			}
		}
	}
	return uplink - overhead
}

func (wanted *wantedDevice) complete(link netlink.Link, mtu int, report *networkReport) error {
	name := link.Attrs().Name
	if link.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("the mtu of %s cannot be %d: %w", name, mtu, err)
		}
		report.changed("mtu %d of %s", mtu, name)
	}
	// The kernel leaves checksums of what it translates to the device, some of which get them wrong inside of vxlan.
	state := "off"
	if wanted.ChecksumOffload {
		state = "on"
	}
	isChanged, err := setChecksumOffload(name, wanted.ChecksumOffload)
	if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return fmt.Errorf("the checksum offload of %s cannot be turned %s: %w", name, state, err)
	}
	if isChanged {
		report.changed("checksum offload of %s is %s", name, state)
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("the device %s cannot be set up: %w", name, err)
		}
		report.changed("%s is up", name)
	}
	return wanted.setAddresses(link, report)
}

func (wanted *wantedDevice) setAddresses(link netlink.Link, report *networkReport) error {
	name := link.Attrs().Name
	present, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("the addresses of %s cannot be read: %w", name, err)
	}
	missing := map[netip.Addr]bool{}
	for _, address := range wanted.Own {
		missing[address] = true
	}
	for _, address := range present {
		known, _ := netip.AddrFromSlice(address.IP)
		known = known.Unmap()
		ones, bits := address.Mask.Size()
		if missing[known] && ones == bits {
			delete(missing, known)
			continue
		}
		if known.IsLinkLocalUnicast() {
			continue
		}
		if err = netlink.AddrDel(link, &address); err != nil {
			return fmt.Errorf("the address %s cannot be taken from %s: %w", known, name, err)
		}
		report.changed("no address %s of %s any more", known, name)
	}
	for _, address := range wanted.Own {
		if !missing[address] {
			continue
		}
		entry := &netlink.Addr{IPNet: networkOf(netip.PrefixFrom(address, address.BitLen()))}
		if address.Is6() {
			entry.Flags = syscall.IFA_F_NODAD
		}
		if err = netlink.AddrReplace(link, entry); err != nil {
			return fmt.Errorf("the address %s cannot be given to %s: %w", address, name, err)
		}
		report.changed("address %s of %s", address, name)
	}
	return nil
}

// ethtool.h
const (
	ethtoolGetTxChecksum = 0x16
	ethtoolSetTxChecksum = 0x17
	siocEthtool          = 0x8946
)

type ethtoolValue struct{ command, data uint32 }

type ethtoolRequest struct {
	name  [syscall.IFNAMSIZ]byte
	value *ethtoolValue
	_     [16]byte
}

// setChecksumOffload says whether it was otherwise.
func setChecksumOffload(name string, isOn bool) (bool, error) {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer syscall.Close(socket)
	ask := func(value *ethtoolValue) error {
		request := ethtoolRequest{value: value}
		copy(request.name[:syscall.IFNAMSIZ-1], name)
		if _, _, code := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), siocEthtool, uintptr(unsafe.Pointer(&request))); code != 0 {
			return code
		}
		return nil
	}
	present := &ethtoolValue{command: ethtoolGetTxChecksum}
	if err = ask(present); err != nil || (present.data != 0) == isOn {
		return false, err
	}
	change := &ethtoolValue{command: ethtoolSetTxChecksum}
	if isOn {
		change.data = 1
	}
	return true, ask(change)
}

// overlay is what a vxlan device has been told of its peers; nil without a device.
type overlay struct {
	link netlink.Link
	// forwarding has the machines' addresses by MAC.
	forwarding map[string]netlink.Neigh
	// neighbours have MACs by address.
	neighbours map[netip.Addr]netlink.Neigh
}

func readOverlay(link netlink.Link) (*overlay, error) {
	if link == nil {
		return nil, nil
	}
	found := &overlay{link: link, forwarding: map[string]netlink.Neigh{}, neighbours: map[netip.Addr]netlink.Neigh{}}
	entries, err := netlink.NeighList(link.Attrs().Index, syscall.AF_BRIDGE)
	if err != nil {
		return nil, fmt.Errorf("the forwarding database of %s cannot be read: %w", link.Attrs().Name, err)
	}
	for _, entry := range entries {
		found.forwarding[entry.HardwareAddr.String()] = entry
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		neighbours, err := netlink.NeighList(link.Attrs().Index, family)
		if err != nil {
			return nil, fmt.Errorf("the neighbours of %s cannot be read: %w", link.Attrs().Name, err)
		}
		for _, entry := range neighbours {
			if address, isAddress := netip.AddrFromSlice(entry.IP); isAddress && entry.State&netlink.NUD_PERMANENT != 0 {
				found.neighbours[address.Unmap()] = entry
			}
		}
	}
	return found, nil
}

// ensurePeer tells the device of a peer, before any route leads there.
func (known *overlay) ensurePeer(wanted peer, report *networkReport) error {
	index, name := known.link.Attrs().Index, known.link.Attrs().Name
	mac := net.HardwareAddr(wanted.MAC)
	if len(mac) != 6 || !wanted.Underlay.IsValid() {
		return errors.New("its MAC or its address is missing")
	}
	if former, isThere := known.forwarding[mac.String()]; !isThere || !former.IP.Equal(wanted.Underlay.AsSlice()) {
		entry := &netlink.Neigh{LinkIndex: index, Family: syscall.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT, IP: wanted.Underlay.AsSlice(), HardwareAddr: mac}
		if err := netlink.NeighSet(entry); err != nil {
			return fmt.Errorf("%s cannot be told that %s is at %s: %w", name, mac, wanted.Underlay, err)
		}
		report.changed("%s is at %s", mac, wanted.Underlay)
	}
	for _, route := range wanted.Routes {
		if former, isThere := known.neighbours[route.Via]; isThere && bytes.Equal(former.HardwareAddr, mac) {
			continue
		}
		entry := &netlink.Neigh{LinkIndex: index, Family: familyOf(route.Via), State: netlink.NUD_PERMANENT, IP: route.Via.AsSlice(), HardwareAddr: mac}
		if err := netlink.NeighSet(entry); err != nil {
			return fmt.Errorf("%s cannot be told that %s is %s: %w", name, route.Via, mac, err)
		}
		report.changed("neighbour %s is %s", route.Via, mac)
	}
	return nil
}

// removeOthers takes away what leads to no peer any more, after the routes to it.
func (known *overlay) removeOthers(peers []peer, report *networkReport) {
	if known == nil {
		return
	}
	macs, vias := map[string]bool{}, map[netip.Addr]bool{}
	for _, peer := range peers {
		macs[net.HardwareAddr(peer.MAC).String()] = true
		for _, route := range peer.Routes {
			vias[route.Via] = true
		}
	}
	for via, entry := range known.neighbours {
		if vias[via] {
			continue
		}
		if err := netlink.NeighDel(&entry); err != nil {
			report.failed("", fmt.Errorf("the neighbour %s cannot be removed: %w", via, err))
			continue
		}
		report.changed("no neighbour %s any more", via)
	}
	for mac, entry := range known.forwarding {
		if macs[mac] {
			continue
		}
		if err := netlink.NeighDel(&entry); err != nil {
			report.failed("", fmt.Errorf("the entry of %s cannot be removed: %w", mac, err))
			continue
		}
		report.changed("%s is nowhere any more", mac)
	}
}
