package firewall

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers: 1 to 4 are of 16 bytes, 8 to 23 the same memory in parts of 4 (NFT_REG32_00 ...).
const (
	reg1    = unix.NFT_REG_1
	reg2    = unix.NFT_REG_2
	part0   = unix.NFT_REG32_00
	fromNAT = 0x20 // IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h
)

// build queues the table with its sets, chains and rules in place of any other of this name.
func (f *Firewall) build() error {
	f.conn.AddTable(f.table)
	f.conn.DelTable(f.table)
	f.conn.AddTable(f.table)
	for _, s := range append(f.sets(), &nftables.Set{Table: f.table, Name: layout, KeyType: nftables.TypeNFProto}) {
		if err := f.conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	accept, drop, masquerade := verdict(expr.VerdictAccept), verdict(expr.VerdictDrop), []expr.Any{&expr.Masq{}}

	guard := f.base("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	f.rule(guard, in("bridges"), ip4, loopback(16), drop)
	f.rule(guard, in("bridges"), ip4, loopback(12), drop)

	publish := f.conn.AddChain(&nftables.Chain{Table: f.table, Name: "publish"})
	f.rule(publish, ip4, addressed(16, 4, "addressed4"), dnat(unix.NFPROTO_IPV4))
	f.rule(publish, ip4, port("ports4"), dnat(unix.NFPROTO_IPV4))
	f.rule(publish, ip6, addressed(24, 16, "addressed6"), dnat(unix.NFPROTO_IPV6))
	f.rule(publish, ip6, port("ports6"), dnat(unix.NFPROTO_IPV6))
	jump := []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: publish.Name}}

	prerouting := f.base("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	f.rule(prerouting, in("bridges"), ip4, destination(16, 4), lookup("resolvers4"), port53, accept)
	f.rule(prerouting, in("bridges"), ip6, destination(24, 16), lookup("resolvers6"), port53, accept)
	f.rule(prerouting, local, jump)

	output := f.base("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	// The kernel routes nothing from ::1 to another interface. Without this a connection to [::1] would hang; so it is refused, and
	// programs try 127.0.0.1.
	f.rule(output, out("lo", expr.CmpOpEq), ip6, destination(24, 16), same(slices.Concat(make([]byte, 15), []byte{1})), accept)
	f.rule(output, local, jump)

	forward := f.base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	f.rule(forward, state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept)
	f.rule(forward, between, accept)
	f.rule(forward, in("internal"), drop)
	f.rule(forward, outTo("internal"), drop)
	f.rule(forward, outTo("bridges"), translated, accept)
	f.rule(forward, outTo("bridges"), drop)
	f.rule(forward, meta(expr.MetaKeyNFPROTO), lookup("closed"), notIn("bridges"), drop)

	postrouting := f.base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	f.rule(postrouting, outTo("bridges"), ip4, loopback(12), masquerade)
	f.rule(postrouting, ip4, member(12, 4, "members4"), translated, masquerade)
	f.rule(postrouting, ip6, member(8, 16, "members6"), translated, masquerade)
	f.rule(postrouting, in("bridges"), notOutTo("bridges"), masquerade)
	return nil
}

func (f *Firewall) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return f.conn.AddChain(&nftables.Chain{Table: f.table, Name: name, Type: kind, Hooknum: hook, Priority: priority, Policy: &policy})
}

func (f *Firewall) rule(c *nftables.Chain, parts ...[]expr.Any) {
	f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: c, Exprs: slices.Concat(parts...)})
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

func meta(k expr.MetaKey) []expr.Any { return []expr.Any{&expr.Meta{Key: k, Register: reg1}} }

func same(data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: data}}
}

func lookup(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg1, SetName: set}}
}

func lookupNot(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg1, SetName: set, Invert: true}}
}

func in(set string) []expr.Any       { return slices.Concat(meta(expr.MetaKeyIIFNAME), lookup(set)) }
func notIn(set string) []expr.Any    { return slices.Concat(meta(expr.MetaKeyIIFNAME), lookupNot(set)) }
func outTo(set string) []expr.Any    { return slices.Concat(meta(expr.MetaKeyOIFNAME), lookup(set)) }
func notOutTo(set string) []expr.Any { return slices.Concat(meta(expr.MetaKeyOIFNAME), lookupNot(set)) }

// out is about the interface by name, out of which a packet goes.
func out(name string, op expr.CmpOp) []expr.Any {
	return slices.Concat(meta(expr.MetaKeyOIFNAME), []expr.Any{&expr.Cmp{Op: op, Register: reg1, Data: ifname(name)}})
}

// destination loads the address a packet goes to.
func destination(offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}}
}

// loopback is 127.0.0.0/8 at an offset of the IPv4 header.
func loopback(offset uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{127}}}
}

// addressed finds address, protocol and port of the destination in a map.
func addressed(offset, length uint32, set string) []expr.Any {
	behind := part0 + length/4
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: behind},
		&expr.Payload{DestRegister: behind + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: set},
	}
}

// member is a packet that goes back into the network whose member its source is. It is not told by the interface it came in by: where
// br_netfilter is loaded it may have been sent back by the bridge itself, and then there is none.
func member(offset, length uint32, set string) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: part0 + length/4},
		&expr.Lookup{SourceRegister: reg1, SetName: set},
	}
}

// port finds protocol and port of the destination in a map.
func port(set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Payload{DestRegister: part0 + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: set},
	}
}

// dnat sends a packet to what the map has put into the registers: address, then port.
func dnat(family uint32) []expr.Any {
	behind := uint32(part0 + 1)
	if family == unix.NFPROTO_IPV6 {
		behind = reg2
	}
	return []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: reg1, RegAddrMax: reg1, RegProtoMin: behind, RegProtoMax: behind, Specified: true}}
}

func state(bits uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: reg1}, mask(bits), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)}}
}

func mask(bits uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)}
}

var (
	ip4 = slices.Concat(meta(expr.MetaKeyNFPROTO), same([]byte{unix.NFPROTO_IPV4}))
	ip6 = slices.Concat(meta(expr.MetaKeyNFPROTO), same([]byte{unix.NFPROTO_IPV6}))
	// local is a destination that is the machine itself.
	local = []expr.Any{&expr.Fib{Register: reg1, FlagDADDR: true, ResultADDRTYPE: true}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)}}
	// port53 is DNS, over whichever protocol has ports.
	port53 = []expr.Any{&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{0, 53}}}
	// between is a packet that goes back into the network it comes from.
	between = []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg2}, &expr.Lookup{SourceRegister: reg1, SetName: "same"}}
	// translated is a connection that publish has sent to a container.
	translated = []expr.Any{&expr.Ct{Key: expr.CtKeySTATUS, Register: reg1}, mask(fromNAT), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)}}
)
