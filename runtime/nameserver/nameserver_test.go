package nameserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/proa-os/proa/runtime/network"
)

var addr = netip.MustParseAddr

func testNames(client string) *network.Names {
	return &network.Names{
		Networks:  map[string]map[string][]netip.Addr{"front": {"web": {addr("10.1.0.2"), addr("fd01::2")}, "all": many(100)}, "back": {"db": {addr("10.2.0.3")}}},
		Clients:   map[netip.Addr]network.Client{addr(client): {Networks: []string{"front"}}, addr("10.2.0.3"): {Networks: []string{"back"}, Sealed: true}, addr("10.1.0.9"): {Networks: []string{"front"}, Servers: []netip.Addr{addr("10.1.0.1"), addr("192.0.2.7")}}},
		Reverse:   map[netip.Addr][2]string{addr("10.1.0.2"): {"web", "front"}, addr("fd01::2"): {"web", "front"}, addr("10.2.0.3"): {"db", "back"}},
		Resolvers: []netip.Addr{addr("10.1.0.1")},
	}
}

func many(n int) (out []netip.Addr) {
	for i := range n {
		out = append(out, netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}))
	}
	return out
}

func query(name string, t dnsmessage.Type, edns int) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: t, Class: dnsmessage.ClassINET}}}
	if edns > 0 {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(edns, dnsmessage.RCodeSuccess, false); err != nil {
			panic(err)
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// read is an answer in one line.
func read(t *testing.T, b []byte) string {
	t.Helper()
	if b == nil {
		return "nothing"
	}
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatal(err)
	}
	if m.ID != 7 || !m.Response || len(m.Questions) > 1 {
		t.Errorf("bad answer: %+v", m)
	}
	out := []string{strings.TrimPrefix(m.RCode.String(), "RCode")}
	if m.Truncated {
		out = append(out, "truncated")
	}
	for _, a := range m.Answers {
		switch body := a.Body.(type) {
		case *dnsmessage.AResource:
			out = append(out, netip.AddrFrom4(body.A).String())
		case *dnsmessage.AAAAResource:
			out = append(out, netip.AddrFrom16(body.AAAA).String())
		case *dnsmessage.PTRResource:
			out = append(out, body.PTR.String())
		}
	}
	if len(out) > 5 {
		out = []string{fmt.Sprint(len(out)-1, " answers")}
	}
	return strings.Join(out, " ")
}

func TestDecide(t *testing.T) {
	names := testNames("10.1.0.5")
	machine := []netip.Addr{addr("192.0.2.53")}
	const rev6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa."
	response := query("web.", dnsmessage.TypeA, 0)
	response[2] |= 0x80
	status := query("web.", dnsmessage.TypeA, 0)
	status[2] |= 2 << 3
	two := query("web.", dnsmessage.TypeA, 0)
	two[5] = 2
	chaos := query("version.bind.", dnsmessage.TypeTXT, 0)
	chaos[len(chaos)-1] = 3
	for _, c := range []struct {
		from string
		msg  []byte
		udp  bool
		want string
	}{
		{"10.1.0.5", query("web.", dnsmessage.TypeA, 0), true, "Success 10.1.0.2"},
		{"10.1.0.5", query("WeB.", dnsmessage.TypeAAAA, 1232), true, "Success fd01::2"},
		{"10.1.0.5", query("web.front.", dnsmessage.TypeA, 0), true, "Success 10.1.0.2"},
		{"10.1.0.5", query("web.", dnsmessage.TypeMX, 0), true, "Success"},
		{"10.1.0.5", query("db.", dnsmessage.TypeA, 0), true, "ask [192.0.2.53]"},
		{"10.1.0.9", query("db.", dnsmessage.TypeA, 0), true, "ask [192.0.2.7]"}, // not in a circle
		{"10.2.0.3", query("db.", dnsmessage.TypeA, 0), true, "Success 10.2.0.3"},
		{"10.2.0.3", query("example.org.", dnsmessage.TypeA, 0), true, "Refused"},
		{"10.1.0.5", query("2.0.1.10.in-addr.arpa.", dnsmessage.TypePTR, 0), true, "Success web.front."},
		{"10.1.0.5", query(rev6, dnsmessage.TypePTR, 0), true, "Success web.front."},
		{"10.1.0.5", query("3.0.2.10.in-addr.arpa.", dnsmessage.TypePTR, 0), true, "ask [192.0.2.53]"},
		{"10.1.0.5", query("all.", dnsmessage.TypeA, 0), true, "Success truncated"},
		{"10.1.0.5", query("all.", dnsmessage.TypeA, 4096), true, "Success truncated"},
		{"10.1.0.5", query("all.", dnsmessage.TypeA, 0), false, "100 answers"},
		{"10.1.0.6", query("web.", dnsmessage.TypeA, 0), true, "nothing"}, // no container
		{"203.0.113.1", query("web.", dnsmessage.TypeA, 0), true, "nothing"},
		{"10.1.0.5", response, true, "nothing"},
		{"10.1.0.5", status, true, "NotImplemented"},
		{"10.1.0.5", two, true, "FormatError"},
		{"10.1.0.5", chaos, true, "Refused"},
		{"10.1.0.5", query("web.", dnsmessage.TypeA, 0)[:11], true, "nothing"},
		{"10.1.0.5", query("web.", dnsmessage.TypeA, 0)[:20], true, "FormatError"},
		{"10.1.0.5", nil, true, "nothing"},
	} {
		d := decide(names, machine, addr(c.from), c.msg, c.udp)
		got := ""
		if d.servers != nil {
			got = fmt.Sprint("ask ", d.servers)
			if r := read(t, d.reply); r != "ServerFailure" {
				t.Errorf("if they do not answer: %s", r)
			}
		} else {
			got = read(t, d.reply)
		}
		if got != c.want {
			t.Errorf("%s asks %x: got %s, want %s", c.from, c.msg, got, c.want)
		}
		if c.udp && len(d.reply) > 1232 {
			t.Errorf("an answer of %d bytes over UDP", len(d.reply))
		}
	}
	// Who shares a name shares the work.
	first := map[string]bool{}
	names.Networks["front"]["two"] = []netip.Addr{addr("10.1.0.2"), addr("10.1.0.3")}
	for range 64 {
		first[read(t, decide(names, nil, addr("10.1.0.5"), query("two.", dnsmessage.TypeA, 0), true).reply)] = true
	}
	if len(first) != 2 {
		t.Errorf("always in the order %v", first)
	}
}

func TestParseReverse(t *testing.T) {
	for _, bad := range []string{"", "arpa.", "in-addr.arpa.", "1.10.in-addr.arpa.", "300.0.1.10.in-addr.arpa.", "0:1.0.1.10.in-addr.arpa.", strings.Repeat("0.", 31) + "ip6.arpa.", strings.Repeat("00.", 32) + "ip6.arpa.", strings.Repeat(":.", 32) + "ip6.arpa."} {
		if a, ok := parseReverse(bad); ok {
			t.Errorf("%q is %s", bad, a)
		}
	}
}

// FuzzDecide: whatever a container sends, there is no panic, and an answer can be read, is marked as one and has the question's id.
func FuzzDecide(f *testing.F) {
	f.Add(query("web.", dnsmessage.TypeA, 4096), true)
	f.Add(query("2.0.1.10.in-addr.arpa.", dnsmessage.TypePTR, 0), false)
	names := testNames("10.1.0.5")
	f.Fuzz(func(t *testing.T, msg []byte, udp bool) {
		d := decide(names, []netip.Addr{addr("192.0.2.53")}, addr("10.1.0.5"), msg, udp)
		if d.reply == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(d.reply); err != nil || !m.Response || len(msg) < 12 || msg[2]&0x80 != 0 || m.ID != uint16(msg[0])<<8|uint16(msg[1]) {
			t.Fatalf("%x is answered by %x: %v", msg, d.reply, err)
		}
		if udp && len(d.reply) > 1232 {
			t.Fatalf("%d bytes", len(d.reply))
		}
	})
}

// upstream answers every question for A with 192.0.2.99, over UDP after a forged answer.
func upstream(t *testing.T) uint16 {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := p.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Skipf("port %d: %v", port, err)
	}
	t.Cleanup(func() { p.Close(); l.Close() })
	reply := func(msg []byte, a [4]byte, id uint16) []byte {
		var m dnsmessage.Message
		if err := m.Unpack(msg); err != nil {
			t.Error(err)
		}
		m.Response, m.ID, m.Additionals = true, m.ID+id, nil
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}, Body: &dnsmessage.AResource{A: a}}}
		b, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return b
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			p.WriteTo(reply(buf[:n], [4]byte{6, 6, 6, 6}, 1), from)
			p.WriteTo(reply(buf[:n], [4]byte{192, 0, 2, 99}, 0), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if msg, err := readMessage(c); err == nil {
				writeMessage(c, reply(msg, [4]byte{192, 0, 2, 99}, 0))
			}
			c.Close()
		}
	}()
	return port
}

// start runs a server on loopback, for which 127.0.0.1 is a container.
func start(t *testing.T, idle time.Duration) (at string, file string, done chan error) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "names.json")
	put(t, file, testNames("127.0.0.1"))
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		t.Skip(err)
	}
	// As a network of two families has two of each. The other is never asked, which must not end the first.
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Names: file, Idle: idle, Port: upstream(t)}
	// The asker is the upstream's address too, which is left out as a circle; so the test gives it other names.
	s.Machine = func() []netip.Addr { return []netip.Addr{addr("127.0.0.2"), addr("127.0.0.3")} }
	s.Dial = func(ctx context.Context, proto, to string) (net.Conn, error) {
		if strings.HasPrefix(to, "127.0.0.2:") {
			return nil, os.ErrDeadlineExceeded // the first is down
		}
		return new(net.Dialer).DialContext(ctx, proto, strings.Replace(to, "127.0.0.3", "127.0.0.1", 1))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done = make(chan error, 1)
	go func() { done <- s.Serve(ctx, []net.PacketConn{udp, silent}, []net.Listener{tcp}) }()
	t.Cleanup(cancel)
	return udp.LocalAddr().String(), file, done
}

func put(t *testing.T, file string, n *network.Names) {
	t.Helper()
	b, err := json.Marshal(n)
	if err == nil {
		if err = os.WriteFile(file+".new", b, 0o644); err == nil {
			err = os.Rename(file+".new", file)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestServe: Go's own resolver is the container.
func TestServe(t *testing.T) {
	at, file, done := start(t, time.Minute)
	for _, proto := range []string{"udp", "tcp"} {
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, proto, at)
		}}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if got, err := r.LookupNetIP(ctx, "ip4", "web."); err != nil || fmt.Sprint(got) != "[10.1.0.2]" {
			t.Errorf("%s: web: %v %v", proto, got, err)
		}
		if got, err := r.LookupNetIP(ctx, "ip6", "web."); err != nil || fmt.Sprint(got) != "[fd01::2]" {
			t.Errorf("%s: web: %v %v", proto, got, err)
		}
		// Over UDP the answer is too large, and the resolver asks again over TCP, as it should.
		if got, err := r.LookupAddr(ctx, "10.1.0.2"); err != nil || fmt.Sprint(got) != "[web.front.]" {
			t.Errorf("%s: 10.1.0.2: %v %v", proto, got, err)
		}
		if got, err := r.LookupNetIP(ctx, "ip4", "example.org."); err != nil || fmt.Sprint(got) != "[192.0.2.99]" {
			t.Errorf("%s: example.org: %v %v", proto, got, err)
		}
	}
	// A change of names is known at once.
	n := testNames("127.0.0.1")
	n.Networks["front"]["new"] = []netip.Addr{addr("10.1.0.77")}
	put(t, file, n)
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return net.Dial("udp", at) }}
	if got, err := r.LookupNetIP(context.Background(), "ip4", "new."); err != nil || fmt.Sprint(got) != "[10.1.0.77]" {
		t.Errorf("new: %v %v", got, err)
	}
	select {
	case err := <-done:
		t.Errorf("ended: %v", err)
	default:
	}
}

// TestIdle: it ends by itself, and not while somebody asks.
func TestIdle(t *testing.T) {
	at, _, done := start(t, 300*time.Millisecond)
	c, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	for range 5 {
		time.Sleep(100 * time.Millisecond)
		c.Write(query("web.", dnsmessage.TypeA, 0))
	}
	select {
	case err := <-done:
		if err != nil || time.Since(began) < 750*time.Millisecond {
			t.Errorf("ended after %v: %v", time.Since(began), err)
		}
	case <-time.After(5 * time.Second):
		t.Error("does not end")
	}
}

// TestBounds: a container that floods gets no more than its share.
func TestBounds(t *testing.T) {
	s := &Server{busy: map[netip.Addr]int{}}
	var releases []func()
	for range 2 * mostOfOne {
		if r := s.admit(addr("10.1.0.2")); r != nil {
			releases = append(releases, r)
		}
	}
	if len(releases) != mostOfOne {
		t.Errorf("%d questions of one are in work", len(releases))
	}
	if s.admit(addr("10.1.0.3")) == nil {
		t.Error("another is not let in")
	}
	for _, r := range releases {
		r()
	}
	if len(s.busy) != 1 || s.total != 1 {
		t.Errorf("after all are done: %v %d", s.busy, s.total)
	}
}
