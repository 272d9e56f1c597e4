/** Where a host keeps what we and the components call: mount, mkfs, modprobe, nft, iptables. */
export const hostPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
