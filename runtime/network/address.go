package network

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// pool is where subnets of networks that name none come from, 1024 of them.
var pool = netip.MustParsePrefix("10.88.0.0/14")

// Choose returns a free subnet of the pool, and a random one of the addresses that every site may use (RFC 4193) if ipv6. random is 5
// bytes.
func Choose(others []*Network, used []netip.Prefix, ipv6 bool, random []byte) ([]Subnet, error) {
	taken := slices.Clone(used)
	for _, o := range others {
		for _, s := range o.Subnets {
			taken = append(taken, s.Prefix)
		}
	}
	p := netip.PrefixFrom(pool.Addr(), 24)
	for ; pool.Contains(p.Addr()); p = next(p) {
		if !slices.ContainsFunc(taken, func(t netip.Prefix) bool { return t.Bits() > 0 && t.Overlaps(p) }) {
			break
		}
	}
	if !pool.Contains(p.Addr()) {
		return nil, fmt.Errorf("no free subnet in %s: name one with --subnet", pool)
	}
	subnets := []Subnet{{Prefix: p}}
	if ipv6 {
		subnets = append(subnets, Choose6(random))
	}
	return subnets, nil
}

// Choose6 makes a subnet of 5 random bytes.
func Choose6(random []byte) Subnet {
	a := [16]byte{0: 0xfd}
	copy(a[1:6], random)
	return Subnet{Prefix: netip.PrefixFrom(netip.AddrFrom16(a), 64)}
}

// next is the /24 behind p.
func next(p netip.Prefix) netip.Prefix {
	a := p.Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) + 1<<8
	binary.BigEndian.PutUint32(a[:], n)
	return netip.PrefixFrom(netip.AddrFrom4(a), 24)
}

// tries bounds the search for an address in a range that nearly nobody fills.
const tries = 1 << 16

// Plan gives an owner an address in each subnet of a network: those asked for, or else one that follows from its name, so that a
// container made again under the same name tends to be where it was. taken says who has an address.
func (n *Network) Plan(owner string, asked []netip.Addr, taken map[netip.Addr]string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, a := range asked {
		if _, ok := n.Subnet(a); !ok {
			return nil, fmt.Errorf("address %s: not in the network %s (%s)", a, n.Name, n.prefixes())
		}
	}
	for _, s := range n.Subnets {
		var wish []netip.Addr
		for _, a := range asked {
			if s.Prefix.Contains(a) {
				wish = append(wish, a)
			}
		}
		switch {
		case len(wish) > 1:
			return nil, fmt.Errorf("addresses %v: want one in %s", wish, s.Prefix)
		case len(wish) == 1:
			a := wish[0]
			if who := taken[a]; who != "" && who != owner {
				return nil, fmt.Errorf("address %s: %s has it", a, who)
			}
			if a == s.Gateway || !usable(s.Prefix, a) {
				return nil, fmt.Errorf("address %s: a container in %s cannot have it", a, s.Prefix)
			}
			out = append(out, a)
		default:
			a, err := s.free(owner, taken)
			if err != nil {
				return nil, fmt.Errorf("network %s: %w", n.Name, err)
			}
			out = append(out, a)
		}
	}
	return out, nil
}

// free looks for an address from where the owner's name points.
func (s Subnet) free(owner string, taken map[netip.Addr]string) (netip.Addr, error) {
	in := rangeOf(s.Prefix)
	if s.Range != nil {
		in = *s.Range
	}
	size := in.size(tries)
	sum := sha256.Sum256([]byte(owner))
	start := binary.BigEndian.Uint64(sum[:]) % size
	for i := range size {
		a := offset(in.First, (start+i)%size)
		if usable(s.Prefix, a) && a != s.Gateway && taken[a] == "" {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses of %s are taken", in)
}

// offset is base + n.
func offset(base netip.Addr, n uint64) netip.Addr {
	b := base.AsSlice()
	for i := len(b) - 1; n > 0; i-- {
		n += uint64(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (n *Network) prefixes() string {
	var all []netip.Prefix
	for _, s := range n.Subnets {
		all = append(all, s.Prefix)
	}
	return fmt.Sprint(all)
}

// ours begins the hardware addresses that HardwareAddr makes: of those that nobody registers (IEEE 802, bit 1 of the first byte).
var ours = [2]byte{0x0e, 0x50}

// HardwareAddr follows from the first address, so that neighbours that remember it are right after a restart.
func HardwareAddr(addresses ...netip.Addr) net.HardwareAddr {
	mac := net.HardwareAddr{ours[0], ours[1], 0, 0, 0, 0}
	if len(addresses) > 0 && addresses[0].Is4() {
		copy(mac[2:], addresses[0].AsSlice())
		return mac
	}
	sum := sha256.Sum256([]byte(fmt.Sprint(addresses)))
	copy(mac[2:], sum[:])
	return mac
}

// HostHardwareAddr is that of the machine's end of a link.
func HostHardwareAddr(link string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(link))
	return append(net.HardwareAddr{ours[0], ours[1]}, sum[:4]...)
}

// OurHardwareAddr reports whether an address is made by this package: an interface that was being made when its maker was killed is known
// by it.
func OurHardwareAddr(mac net.HardwareAddr) bool { return len(mac) == 6 && [2]byte(mac) == ours }
