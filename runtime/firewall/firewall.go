// Package firewall keeps the table inet proa of nftables as a network.Rules says: published ports, masquerading, and what may pass between
// networks. It is an edge; package network decides.
//
// The rules never change: they look into sets and maps, and a change adds and removes elements, so it touches no connection and no other
// container's port. Each Apply is one transaction of the kernel; killed at any moment it has happened or not. Without networks there is
// no table. Tables of others are neither read nor changed: whoever drops what is forwarded in a chain of his own has the last word, and
// lets our networks pass by their interfaces, iifname "pn-*" and oifname "pn-*".
//
//	guard        prerouting, raw       a bridge has no business with the machine's loopback addresses
//	prerouting   nat, dstnat           resolvers as they are; else a port of this machine to its container
//	output       nat, dstnat           the same for the machine's own connections
//	publish      from both             map of address and port first, map of port then
//	forward      filter                answers; between two networks nothing; from outside only what is published
//	postrouting  nat, srcnat           masquerade to the outside, and what comes from 127.0.0.1 or comes back to its own network
//
// Spec: nft(8), linux/netfilter/nf_tables.h.
package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/network"
)

// layout is the name of an empty set that says how the table is built. Another release of the OS that finds another one builds it anew,
// in one transaction.
const layout = "layout_1"

// chunk bounds the elements of one message, whose length is 16 bits.
const chunk = 400

// socketBuffer holds the largest transaction.
const socketBuffer = 4 << 20

// Firewall is the table in one network namespace.
type Firewall struct {
	conn  *nftables.Conn
	table *nftables.Table
}

// Open opens the firewall of the namespace of this thread.
func Open() (*Firewall, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(socketBuffer), c.SetReadBuffer(socketBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &Firewall{conn: conn, table: &nftables.Table{Name: "proa", Family: nftables.TableFamilyINet}}, nil
}

// Close closes the connection to the kernel.
func (f *Firewall) Close() error { return f.conn.CloseLasting() }

// Apply makes the table hold the rules, and removes it if they are for no network.
func (f *Firewall) Apply(r network.Rules) error {
	if len(r.Bridges) == 0 {
		return f.remove()
	}
	built, err := f.built()
	if err != nil {
		return fmt.Errorf("read table inet proa: %w", err)
	}
	want := elements(r)
	if !built {
		if err := f.build(); err != nil {
			return fmt.Errorf("build table inet proa: %w", err)
		}
	}
	for _, s := range f.sets() {
		var have []nftables.SetElement
		if built {
			if have, err = f.conn.GetSetElements(s); err != nil {
				return fmt.Errorf("read set %s: %w", s.Name, err)
			}
		}
		if err := f.change(s, have, want[s.Name]); err != nil {
			return fmt.Errorf("change set %s: %w", s.Name, err)
		}
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("change table inet proa: %w", err)
	}
	return nil
}

// change queues the difference between what a set has and is to have.
func (f *Firewall) change(s *nftables.Set, have, want []nftables.SetElement) error {
	same := func(a, b nftables.SetElement) bool { return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Val, b.Val) }
	byKey := map[string]nftables.SetElement{}
	for _, e := range have {
		byKey[string(e.Key)] = e
	}
	var add, del []nftables.SetElement
	for _, e := range want {
		old, ok := byKey[string(e.Key)]
		delete(byKey, string(e.Key))
		if ok && same(old, e) {
			continue
		}
		if ok {
			del = append(del, nftables.SetElement{Key: e.Key, Val: old.Val})
		}
		add = append(add, e)
	}
	for _, e := range byKey {
		del = append(del, nftables.SetElement{Key: e.Key, Val: e.Val})
	}
	for c := range slices.Chunk(del, chunk) {
		if err := f.conn.SetDeleteElements(s, c); err != nil {
			return err
		}
	}
	for c := range slices.Chunk(add, chunk) {
		if err := f.conn.SetAddElements(s, c); err != nil {
			return err
		}
	}
	return nil
}

// built reports whether the table is there as this release builds it.
func (f *Firewall) built() (bool, error) {
	tables, err := f.conn.ListTablesOfFamily(f.table.Family)
	if err != nil || !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == f.table.Name }) {
		return false, err
	}
	sets, err := f.conn.GetSets(f.table)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(sets, func(s *nftables.Set) bool { return s.Name == layout }), nil
}

// remove deletes the table. Adding it first makes deleting succeed in any case.
func (f *Firewall) remove() error {
	f.conn.AddTable(f.table)
	f.conn.DelTable(f.table)
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("remove table inet proa: %w", err)
	}
	return nil
}

// sets are all sets and maps that hold elements.
func (f *Firewall) sets() []*nftables.Set {
	protoPort := nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	target4 := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	target6 := nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService)
	full := func(addr nftables.SetDatatype) nftables.SetDatatype {
		return nftables.MustConcatSetType(addr, nftables.TypeInetProto, nftables.TypeInetService)
	}
	ss := []*nftables.Set{
		{Name: "bridges", KeyType: nftables.TypeIFName},
		{Name: "internal", KeyType: nftables.TypeIFName},
		{Name: "same", KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName)},
		{Name: "members4", KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIFName)},
		{Name: "members6", KeyType: nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeIFName)},
		{Name: "closed", KeyType: nftables.TypeNFProto},
		{Name: "resolvers4", KeyType: nftables.TypeIPAddr},
		{Name: "resolvers6", KeyType: nftables.TypeIP6Addr},
		{Name: "ports4", KeyType: protoPort, DataType: target4, IsMap: true},
		{Name: "ports6", KeyType: protoPort, DataType: target6, IsMap: true},
		{Name: "addressed4", KeyType: full(nftables.TypeIPAddr), DataType: target4, IsMap: true},
		{Name: "addressed6", KeyType: full(nftables.TypeIP6Addr), DataType: target6, IsMap: true},
	}
	for _, s := range ss {
		s.Table = f.table
		if strings.HasPrefix(s.KeyType.Name, "ifname") {
			s.KeyByteOrder = binaryutil.NativeEndian // how nft prints names
		}
	}
	return ss
}

// elements are the contents of the sets.
func elements(r network.Rules) map[string][]nftables.SetElement {
	out := map[string][]nftables.SetElement{}
	seen := map[string]bool{}
	// PlanPorts has refused two elements with one key, but a transaction with both would fail for all.
	add := func(set string, key, val []byte) {
		if id := set + string(key); !seen[id] {
			seen[id] = true
			out[set] = append(out[set], nftables.SetElement{Key: key, Val: val})
		}
	}
	for _, b := range r.Bridges {
		add("bridges", ifname(b), nil)
		add("same", append(ifname(b), ifname(b)...), nil)
	}
	for _, b := range r.Internal {
		add("internal", ifname(b), nil)
	}
	for _, m := range r.Members {
		add("members"+family(m.Address), append(m.Address.AsSlice(), ifname(m.Bridge)...), nil)
	}
	if r.Closed4 {
		add("closed", []byte{unix.NFPROTO_IPV4}, nil)
	}
	if r.Closed6 {
		add("closed", []byte{unix.NFPROTO_IPV6}, nil)
	}
	for _, a := range r.Resolvers {
		add("resolvers"+family(a), a.AsSlice(), nil)
	}
	for _, f := range r.Forwards {
		key := slices.Concat(padded(protocol(f.Protocol)), padded(binaryutil.BigEndian.PutUint16(f.Port)))
		set := "ports" + family(f.To.Addr())
		if f.From.IsValid() {
			key, set = slices.Concat(f.From.AsSlice(), key), "addressed"+family(f.To.Addr())
		}
		add(set, key, slices.Concat(f.To.Addr().AsSlice(), padded(binaryutil.BigEndian.PutUint16(f.To.Port()))))
	}
	return out
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

func protocol(name string) []byte {
	if strings.EqualFold(name, "udp") {
		return []byte{unix.IPPROTO_UDP}
	}
	return []byte{unix.IPPROTO_TCP}
}

// padded fills a part of a concatenation up to a register.
func padded(b []byte) []byte { return append(slices.Clone(b), make([]byte, (4-len(b)%4)%4)...) }

func ifname(s string) []byte {
	b := make([]byte, 16)
	copy(b, s)
	return b
}
