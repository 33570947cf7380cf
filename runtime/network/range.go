package network

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
)

// A Range is where addresses are taken from, both ends included. As text it is 10.2.0.128/25, or 10.2.0.100-10.2.0.120 where it is no prefix.
type Range struct {
	First, Last netip.Addr
}

// ParseRange reads either form.
func ParseRange(text string) (Range, error) {
	wrong := errors.New("want a range such as 10.20.0.128/25 or 10.20.0.100-10.20.0.120")
	if p, err := netip.ParsePrefix(text); err == nil {
		return rangeOf(p), nil
	}
	first, last, ok := strings.Cut(text, "-")
	a, err1 := netip.ParseAddr(first)
	b, err2 := netip.ParseAddr(last)
	if !ok || err1 != nil || err2 != nil || a.BitLen() != b.BitLen() || a.Zone()+b.Zone() != "" || b.Less(a) {
		return Range{}, wrong
	}
	return Range{a, b}, nil
}

// rangeOf is all of a prefix.
func rangeOf(p netip.Prefix) Range {
	first := p.Masked().Addr()
	b := first.AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return Range{first, last}
}

// size is how many addresses are in it, at most limit.
func (r Range) size(limit uint64) uint64 {
	a, b := r.First.As16(), r.Last.As16()
	if [8]byte(a[:8]) != [8]byte(b[:8]) {
		return limit
	}
	if d := binary.BigEndian.Uint64(b[8:]) - binary.BigEndian.Uint64(a[8:]); d < limit {
		return d + 1
	}
	return limit
}

func (r Range) String() string {
	for bits := range r.First.BitLen() + 1 {
		if p, err := r.First.Prefix(bits); err == nil && rangeOf(p) == r {
			return p.String()
		}
	}
	return r.First.String() + "-" + r.Last.String()
}

// MarshalText writes what String says: a prefix as it always was in networks' files.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRange.
func (r *Range) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRange(string(text))
	return err
}
