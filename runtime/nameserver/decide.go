// Package nameserver answers containers' questions for names of containers in their networks, and passes other questions on.
//
// systemd holds its sockets, bound to a network's bridge, and starts it with the first question (proa-dns@BRIDGE.socket); it runs as a user
// of its own without privileges and ends when nobody has asked for a while. What it knows is one file that containerctl replaces
// (network.Names); a question finds the newest.
//
// It answers addresses (A, AAAA) and names of addresses (PTR) itself. Everything else goes to the servers that the container or its network
// was made with, or that the machine asks, with a port and an id of its own; only an answer from there with that id and to that question
// comes back. Who is not a container of this machine is not answered, so it is no help in flooding others; nor is anybody in a network
// without a way out, but for containers' names. Questions in work are bounded, for each container and for all.
//
// Spec: RFC 1035, RFC 6891 (sizes), RFC 5452 (what a forged answer would have to guess).
package nameserver

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/proa-os/proa/runtime/network"
)

const (
	// ttl is how many seconds an answer is good for. Containers come and go.
	ttl = 5
	// udpSize is the largest answer over UDP that is not cut on its way (DNS flag day 2020).
	udpSize = 1232
)

// A decision is what becomes of a question: an answer, servers to ask, or neither.
type decision struct {
	reply   []byte
	servers []netip.Addr
	query   dnsmessage.Question
}

// decide looks at one message from a container.
func decide(names *network.Names, machine []netip.Addr, from netip.Addr, msg []byte, udp bool) decision {
	client, known := names.Clients[from]
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response || !known {
		return decision{}
	}
	r := reply{id: h.ID, rd: h.RecursionDesired, opcode: h.OpCode, limit: 65535}
	if h.OpCode != 0 {
		return r.code(dnsmessage.RCodeNotImplemented)
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return r.code(dnsmessage.RCodeFormatError)
	}
	q := questions[0]
	r.question = &q
	size, edns := payload(&p)
	r.edns = edns
	if udp {
		r.limit = size
	}
	if q.Class != dnsmessage.ClassINET {
		return r.code(dnsmessage.RCodeRefused)
	}
	if q.Type == dnsmessage.TypePTR {
		if a, ok := parseReverse(q.Name.String()); ok {
			if name, ok := names.FindAddr(client, a); ok {
				return r.names(name)
			}
		}
	} else if addrs, ok := names.Find(client, q.Name.String()); ok {
		return r.addresses(addrs)
	}
	servers := client.Servers
	if len(servers) == 0 {
		servers = machine
	}
	servers = slices.DeleteFunc(slices.Clone(servers), func(a netip.Addr) bool { return slices.Contains(names.Resolvers, a) || a == from })
	if client.Sealed || len(servers) == 0 {
		return r.code(dnsmessage.RCodeRefused)
	}
	return decision{servers: servers, query: q, reply: r.code(dnsmessage.RCodeServerFailure).reply}
}

// payload is how large an answer over UDP may be, and whether the asker speaks EDNS. What cannot be read counts as not there.
func payload(p *dnsmessage.Parser) (int, bool) {
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return 512, false
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return 512, false
		}
		if h.Type == dnsmessage.TypeOPT {
			return min(max(int(h.Class), 512), udpSize), true
		}
		if p.SkipAdditional() != nil {
			return 512, false
		}
	}
}

// parseReverse reads 2.0.88.10.in-addr.arpa and its like of IPv6.
func parseReverse(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		f := strings.Split(rest, ".")
		slices.Reverse(f)
		a, err := netip.ParseAddr(strings.Join(f, "."))
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	f := strings.Split(rest, ".")
	if !ok || len(f) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(f)
	var b strings.Builder
	for i, digit := range f {
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		b.WriteString(digit)
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil && a.Is6() && len(b.String()) == 39
}

// reply writes answers.
type reply struct {
	id       uint16
	rd, edns bool
	opcode   dnsmessage.OpCode
	question *dnsmessage.Question
	limit    int
}

func (r reply) code(c dnsmessage.RCode) decision { return r.build(c, nil) }

// addresses are in random order, so that containers that share a name share the work.
func (r reply) addresses(all []netip.Addr) decision {
	var out []dnsmessage.Resource
	h := r.header()
	for _, i := range rand.Perm(len(all)) {
		a := all[i]
		switch {
		case a.Is4() && r.question.Type == dnsmessage.TypeA:
			out = append(out, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && r.question.Type == dnsmessage.TypeAAAA:
			out = append(out, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return r.build(dnsmessage.RCodeSuccess, out)
}

func (r reply) names(name string) decision {
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return r.code(dnsmessage.RCodeServerFailure)
	}
	return r.build(dnsmessage.RCodeSuccess, []dnsmessage.Resource{{Header: r.header(), Body: &dnsmessage.PTRResource{PTR: n}}})
}

func (r reply) header() dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: r.question.Name, Type: r.question.Type, Class: dnsmessage.ClassINET, TTL: ttl}
}

// build packs an answer, without its records and marked so if it is too large.
func (r reply) build(c dnsmessage.RCode, answers []dnsmessage.Resource) decision {
	m := dnsmessage.Message{
		Header:  dnsmessage.Header{ID: r.id, Response: true, OpCode: r.opcode, Authoritative: len(answers) > 0, RecursionDesired: r.rd, RecursionAvailable: true, RCode: c},
		Answers: answers,
	}
	if r.question != nil {
		m.Questions = []dnsmessage.Question{*r.question}
	}
	if r.edns {
		var h dnsmessage.ResourceHeader
		if h.SetEDNS0(udpSize, dnsmessage.RCodeSuccess, false) == nil {
			m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
		}
	}
	b, err := m.Pack()
	if err == nil && len(b) > r.limit {
		m.Answers, m.Header.Truncated = nil, true
		b, err = m.Pack()
	}
	if err != nil {
		return decision{} // a question that cannot be repeated: nothing to say
	}
	return decision{reply: b}
}

// matches reports whether msg answers a question that was asked with id.
func matches(msg []byte, id uint16, q dnsmessage.Question) bool {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != id {
		return false
	}
	got, err := p.Question()
	return err == nil && got.Type == q.Type && got.Class == q.Class && strings.EqualFold(got.Name.String(), q.Name.String())
}

// withID returns msg with another id.
func withID(msg []byte, id uint16) []byte {
	out := slices.Clone(msg)
	binary.BigEndian.PutUint16(out, id)
	return out
}
