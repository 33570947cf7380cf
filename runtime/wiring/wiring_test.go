package wiring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/runtime/link"
	"github.com/proa-os/proa/runtime/network"
)

// world is a machine (the namespace of the test's thread) with a wire to a host outside, 192.0.2.2 and 2001:db8::2.
type world struct {
	*Wiring
	t       *testing.T
	outside *os.File
	judges  *tooltree.Tree
	units   *sockets
}

// sockets records which units run.
type sockets struct {
	running map[string]bool
	fail    error
}

func (s *sockets) Listen(_ context.Context, unit, link string, addresses []netip.Addr) error {
	s.running[unit] = true
	if unit != SocketUnit(link) || len(addresses) == 0 {
		return fmt.Errorf("socket %s for %s on %v", unit, link, addresses)
	}
	return s.fail
}
func (s *sockets) Stop(_ context.Context, unit string) error { delete(s.running, unit); return nil }

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT CHECKED without root: needs network namespaces")
	}
	judges := testenv.Judges(t)
	runtime.LockOSThread() // never unlocked
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	u := &sockets{running: map[string]bool{}}
	w := &world{t: t, judges: judges, units: u, Wiring: wiringIn(dir, u)}
	outside, err := link.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	w.outside = outside
	w.ip(nil, "link set lo up")
	w.ip(nil, fmt.Sprintf("link add up0 type veth peer name eth0 netns /proc/%d/fd/%d", os.Getpid(), outside.Fd()))
	w.ip(nil, "addr add 192.0.2.1/24 dev up0")
	w.ip(nil, "addr add 2001:db8::1/64 dev up0 nodad")
	w.ip(nil, "link set up0 up")
	w.ip(outside, "addr add 192.0.2.2/24 dev eth0")
	w.ip(outside, "addr add 2001:db8::2/64 dev eth0 nodad")
	w.ip(outside, "link set eth0 up")
	return w
}

// in runs f in a namespace, nil being the machine's.
func (w *world) in(ns *os.File, f func()) {
	w.t.Helper()
	if ns == nil {
		f()
		return
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := link.Enter(ns)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ip(ns *os.File, args string) string {
	w.t.Helper()
	var (
		out []byte
		err error
	)
	w.in(ns, func() {
		out, err = w.judges.Command(context.Background(), "ip", strings.Fields(args)...).CombinedOutput()
	})
	if err != nil {
		w.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// nft is the ruleset as the foreign program reads it.
func (w *world) nft() string {
	out, err := w.judges.Command(context.Background(), "nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		w.t.Fatalf("nft: %v %s", err, out)
	}
	return string(out)
}

// container is a namespace that is attached.
type container struct {
	ns        *os.File
	addresses []netip.Addr
	want      Wanted
}

func (w *world) start(owner string, nets []string, ports ...string) *container {
	w.t.Helper()
	c, err := w.tryStart(owner, nets, ports...)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) tryStart(owner string, nets []string, ports ...string) (*container, error) {
	w.t.Helper()
	claim := Claim{Owner: owner}
	for _, n := range nets {
		claim.Attachments = append(claim.Attachments, network.Attachment{Network: n})
	}
	for _, p := range ports {
		parsed, err := network.ParsePublish(p)
		if err != nil {
			w.t.Fatal(err)
		}
		claim.Ports = append(claim.Ports, parsed...)
	}
	if err := w.Plan(&claim, nil); err != nil {
		return nil, err
	}
	ns, err := link.NewNamespace()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { ns.Close() })
	c := &container{ns: ns, want: Wanted{Attachments: claim.Attachments, Ports: claim.Ports}}
	for _, a := range claim.Attachments {
		c.addresses = append(c.addresses, a.Addresses...)
	}
	return c, w.Attach(context.Background(), owner, ns, c.want)
}

// create makes a network.
func (w *world) create(n network.Network, ipv6 bool) {
	w.t.Helper()
	if err := w.Create(&n, ipv6); err != nil {
		w.t.Fatal(err)
	}
}

// serve answers over TCP and UDP with its name and who asks, on all addresses.
func (w *world) serve(ns *os.File, port int, name string) {
	w.t.Helper()
	var l net.Listener
	var p net.PacketConn
	var err1, err2 error
	w.in(ns, func() {
		l, err1 = net.Listen("tcp", fmt.Sprintf(":%d", port))
		p, err2 = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	})
	if err := errors.Join(err1, err2); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s", name, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 100)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			p.WriteTo(fmt.Appendf(nil, "%s %s", name, from.(*net.UDPAddr).AddrPort().Addr().Unmap()), from)
		}
	}()
}

// serveOnce answers TCP on a port until stop.
func (w *world) serveOnce(ns *os.File, port int) (stop func()) {
	w.t.Helper()
	var l net.Listener
	var err error
	w.in(ns, func() { l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)) })
	if err != nil {
		w.t.Fatal(err)
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			fmt.Fprint(c, "once")
			c.Close()
		}
	}()
	return func() { l.Close() }
}

// ask asks from a namespace and returns the answer, or how it failed: refused or lost.
func (w *world) ask(ns *os.File, proto, to string) string {
	w.t.Helper()
	answer := ""
	w.in(ns, func() {
		d := net.Dialer{Timeout: 300 * time.Millisecond}
		c, err := d.Dial(proto, to)
		if err == nil {
			defer c.Close()
			c.SetDeadline(time.Now().Add(300 * time.Millisecond))
			if proto == "udp" {
				_, err = c.Write([]byte("?"))
			}
			var b []byte
			if err == nil {
				b = make([]byte, 200)
				var n int
				if n, err = c.Read(b); err == nil || err == io.EOF {
					answer, err = string(b[:n]), nil
				}
			}
		}
		switch {
		case errors.Is(err, unix.ECONNREFUSED):
			answer = "refused"
		case err != nil:
			answer = "lost"
		}
	})
	return answer
}

// empty checks that nothing of ours is left.
func (w *world) empty() {
	w.t.Helper()
	if out := w.ip(nil, "-o link"); strings.Count(out, "\n") != 2 {
		w.t.Errorf("links stay:\n%s", out)
	}
	if out := w.nft(); out != "" {
		w.t.Errorf("rules stay:\n%s", out)
	}
	if got, err := link.ReadForwarding(); err != nil || got.IPv4 || got.IPv6 && link.HasIPv6() {
		w.t.Errorf("forwarding stays: %+v %v", got, err)
	}
	for _, d := range []string{w.dir("endpoints"), w.dir("resolvers"), w.Namespaces} {
		if names, _ := os.ReadDir(d); len(names) != 0 {
			w.t.Errorf("%s holds %v", d, names)
		}
	}
	for _, f := range []string{w.dir(NamesFile), w.dir("forwarding")} {
		if _, err := os.Stat(f); err == nil {
			w.t.Errorf("%s stays", f)
		}
	}
	if len(w.units.running) != 0 {
		w.t.Errorf("units run: %v", w.units.running)
	}
}

func (w *world) releaseAll(owners ...string) {
	w.t.Helper()
	for _, o := range owners {
		if err := w.Release(context.Background(), o); err != nil {
			w.t.Error(err)
		}
	}
	w.empty()
}

// TestTraffic is what must pass, and what must not, with and without br_netfilter showing frames within a network to the firewall.
func TestTraffic(t *testing.T) {
	for _, filter := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+filter, func(t *testing.T) { testTraffic(t, filter) })
	}
}

func testTraffic(t *testing.T, filter string) {
	w := newWorld(t)
	for _, name := range []string{"iptables", "ip6tables"} {
		err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte(filter), 0)
		if err != nil && filter == "1" {
			t.Skipf("SKIPPED, NOT CHECKED with br_netfilter: %v", err)
		}
	}
	w.create(network.Network{Name: "front"}, true)
	w.create(network.Network{Name: "back", Internal: true}, true)
	web := w.start("web", []string{"bridge", "back"}, "8080:80", "8081:80/udp", "127.0.0.1:7070:80", "[2001:db8::1]:9090:80")
	peer := w.start("peer", []string{"bridge"})
	other := w.start("other", []string{"front"}, "8888:80")
	db := w.start("db", []string{"back"})
	w.serve(web.ns, 80, "web")
	w.serve(other.ns, 80, "other")
	w.serve(db.ns, 80, "db")
	w.serve(nil, 99, "machine")
	w.serve(w.outside, 80, "outside")

	at := func(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }
	web4, web6, back4 := web.addresses[0], web.addresses[1], web.addresses[2]
	w.ip(w.outside, "route add 10.88.0.0/14 via 192.0.2.1") // a neighbour who knows where our networks are
	for _, c := range []struct {
		what      string
		from      *os.File
		proto, to string
		want      string
	}{
		{"two in a network", peer.ns, "tcp", at(web4, 80), "web " + peer.addresses[0].String()},
		{"the same by IPv6", peer.ns, "tcp", at(web6, 80), "web " + peer.addresses[1].String()},
		{"published, from outside", w.outside, "tcp", "192.0.2.1:8080", "web 192.0.2.2"},
		{"the same by IPv6", w.outside, "tcp", "[2001:db8::1]:8080", "web 2001:db8::2"},
		{"the same by UDP", w.outside, "udp", "192.0.2.1:8081", "web 192.0.2.2"},
		{"UDP by IPv6", w.outside, "udp", "[2001:db8::1]:8081", "web 2001:db8::2"},
		{"one address only", w.outside, "tcp", "[2001:db8::1]:9090", "web 2001:db8::2"},
		{"not by the other", w.outside, "tcp", "192.0.2.1:9090", "refused"},
		{"published on 127.0.0.1", nil, "tcp", "127.0.0.1:7070", "web 10.88.2.1"},
		{"not to outside", w.outside, "tcp", "192.0.2.1:7070", "refused"},
		{"the machine by 127.0.0.1", nil, "tcp", "127.0.0.1:8080", "web 10.88.2.1"},
		{"by [::1] it is refused at once", nil, "tcp", "[::1]:8080", "refused"},
		{"the machine by its address", nil, "tcp", "192.0.2.1:8080", "web 192.0.2.1"},
		{"the machine by its IPv6 address", nil, "tcp", "[2001:db8::1]:8080", "web 2001:db8::1"},
		{"the machine, directly", nil, "tcp", at(web4, 80), "web 10.88.2.1"},
		{"a container by its own port", web.ns, "tcp", "192.0.2.1:8080", "web 10.88.2.1"},
		{"a neighbour by the port", peer.ns, "tcp", "192.0.2.1:8080", "web 10.88.2.1"},
		{"another network by the port", other.ns, "tcp", "192.0.2.1:8080", "web " + other.addresses[0].String()},
		{"another network directly", other.ns, "tcp", at(web4, 80), "lost"},
		{"another network by IPv6", other.ns, "tcp", at(web6, 80), "lost"},
		{"a container to outside", peer.ns, "tcp", "192.0.2.2:80", "outside 192.0.2.1"},
		{"by IPv6", peer.ns, "tcp", "[2001:db8::2]:80", "outside 2001:db8::1"},
		{"from outside directly", w.outside, "tcp", at(web4, 80), "lost"},
		{"in an internal network", db.ns, "tcp", at(back4, 80), "web " + db.addresses[0].String()},
		{"internal, to outside", db.ns, "tcp", "192.0.2.2:80", "lost"},
		{"internal, to a port", db.ns, "tcp", "192.0.2.1:8888", "lost"},
		{"the machine's loopback", web.ns, "tcp", "127.0.0.1:99", "refused"},
	} {
		got := w.ask(c.from, c.proto, c.to)
		if got != c.want {
			t.Errorf("%s: %s to %s: got %q, want %q", c.what, c.proto, c.to, got, c.want)
		}
	}
	// Loopback addresses are no way into the machine, though the bridge may route them: peer sends its own out.
	w.ip(peer.ns, "addr del 127.0.0.1/8 dev lo")
	w.in(peer.ns, func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0); err != nil {
			t.Error(err)
		}
	})
	w.ip(peer.ns, "route add 127.0.0.0/8 via 10.88.2.1 src "+peer.addresses[0].String())
	if got := w.ask(peer.ns, "tcp", "127.0.0.1:99"); got != "lost" {
		t.Errorf("a container reaches the machine's loopback: %q", got)
	}
	if t.Failed() {
		t.Log(w.nft(), w.ip(nil, "addr"), w.ip(nil, "route"), w.ip(web.ns, "addr"), w.ip(web.ns, "route"))
	}
	if n := len(w.units.running); n != 3 {
		t.Errorf("%d responders, want one for each network: %v", n, w.units.running)
	}
	w.releaseAll("web", "peer", "other", "db")
}
