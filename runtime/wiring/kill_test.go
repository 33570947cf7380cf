package wiring

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/runtime/link"
	"github.com/proa-os/proa/runtime/network"
)

// kills is for a longer look: go test ./runtime/wiring -run TestKill -kills 200
var kills = flag.Int("kills", 6, "how often TestKill kills in each operation")

// The test binary is also the process that is killed.
func TestMain(m *testing.M) {
	if op := os.Getenv("WIRING_OPERATION"); op != "" {
		victim(op, os.Getenv("WIRING_DIR"))
	}
	os.Exit(m.Run())
}

// victim says that it begins, carries out one operation and says that it is done.
func victim(op, dir string) {
	w := wiringIn(dir, &sockets{running: map[string]bool{}})
	ctx := context.Background()
	fmt.Println("begin")
	var err error
	switch op {
	case "attach":
		var ns *os.File
		if ns, err = link.NewNamespace(); err == nil {
			err = w.Attach(ctx, "web", ns, killWanted(w, "web", "bridge", "front"))
		}
	case "change":
		err = w.Change(ctx, "web", os.NewFile(3, "namespace"), killWanted(w, "web", "bridge", "front"))
	case "release":
		err = w.Release(ctx, "web")
	case "up":
		_, err = w.Up(ctx, "pod", killWanted(w, "ns:pod", "front"))
	}
	fmt.Println("done", err)
	os.Exit(0)
}

func wiringIn(dir string, s Sockets) *Wiring {
	return &Wiring{Networks: filepath.Join(dir, "networks"), Run: filepath.Join(dir, "run"), Namespaces: filepath.Join(dir, "netns"), Sockets: s, Warn: func(err error) { fmt.Fprintln(os.Stderr, err) }}
}

// killWanted is what web or the pod wants: fixed, as from a container's file.
func killWanted(w *Wiring, owner string, nets ...string) Wanted {
	claim := Claim{Owner: owner, Ports: []network.Port{{HostPort: 8080, Port: 80, Protocol: "tcp"}, {HostPort: 8080, Port: 80, Protocol: "udp"}}}
	for _, n := range nets {
		claim.Attachments = append(claim.Attachments, network.Attachment{Network: n})
	}
	if err := w.Plan(&claim, nil); err != nil {
		fmt.Println("plan:", err)
		os.Exit(1)
	}
	return Wanted{Attachments: claim.Attachments, Ports: claim.Ports}
}

// state is all that operations change, in an order of its own.
func (w *world) state() string {
	w.t.Helper()
	var out []string
	for line := range strings.Lines(w.ip(nil, "-o link")) {
		out = append(out, strings.Fields(line)[1])
	}
	out = append(out, strings.Fields(strings.ReplaceAll(w.nft(), ",", " "))...)
	for _, d := range []string{w.dir("endpoints"), w.dir("resolvers"), w.Namespaces} {
		names, _ := os.ReadDir(d)
		for _, n := range names {
			out = append(out, filepath.Join(filepath.Base(d), n.Name()))
		}
	}
	b, _ := os.ReadFile(w.dir(NamesFile))
	forwarding, err := link.ReadForwarding()
	slices.Sort(out)
	return strings.Join(append(out, string(b), fmt.Sprint(forwarding, err)), "\n")
}

// killAfter runs a victim and kills it at some time after it has begun; without a time it runs to its end. It returns how long it ran.
func (w *world) killAfter(op string, after time.Duration, ns *os.File) time.Duration {
	w.t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "WIRING_OPERATION="+op, "WIRING_DIR="+filepath.Dir(w.Run))
	if ns != nil {
		c.ExtraFiles = []*os.File{ns}
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "begin" {
		w.t.Fatalf("%s: %q", op, lines.Text())
	}
	began := time.Now()
	if after > 0 {
		time.Sleep(after)
		c.Process.Kill()
	} else if lines.Scan(); lines.Text() != "done <nil>" {
		w.t.Fatalf("%s: %q", op, lines.Text())
	}
	took := time.Since(began)
	c.Wait()
	return took
}

// gone waits until the kernel has removed the namespaces of killed processes, and with them all links but those in want.
func (w *world) gone(want int) {
	w.t.Helper()
	for range 500 {
		have, err := link.Open()
		if err != nil {
			w.t.Fatal(err)
		}
		l, err := have.List()
		have.Close()
		if err == nil && len(l.Veths) == want {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Errorf("links of a killed process stay: %s", w.ip(nil, "-o link"))
}

// TestKill kills each operation at moments over all of its length. What the next one does must not depend on it.
func TestKill(t *testing.T) {
	w := newWorld(t)
	w.create(network.Network{Name: "front"}, true)
	// Another container that must not notice.
	peer := w.start("peer", []string{"bridge"}, "7070:80")
	w.serve(peer.ns, 80, "peer")
	before := w.state()
	same := func(op string, after time.Duration) {
		t.Helper()
		if now := w.state(); now != before {
			t.Fatalf("%s killed after %v: now\n%s\nbefore\n%s", op, after, now, before)
		}
		if got := w.ask(w.outside, "tcp", "192.0.2.1:7070"); got != "peer 192.0.2.2" {
			t.Fatalf("%s killed after %v: the other container answers %q", op, after, got)
		}
	}
	// No subtests: each would be on another thread, in the namespace of the real machine.
	for _, op := range []string{"attach", "change", "release", "up"} {
		ns := w.begin(op)
		length := w.killAfter(op, 0, ns)
		w.finish(op, ns)
		same(op, 0)
		for i := range *kills {
			ns := w.begin(op)
			after := time.Duration((float64(i) + rand.Float64()) / float64(*kills) * 1.2 * float64(length))
			w.killAfter(op, max(after, 1), ns)
			w.finish(op, ns)
			same(op, after)
		}
	}
	w.releaseAll("peer")
}

// begin is what an operation finds.
func (w *world) begin(op string) *os.File {
	w.t.Helper()
	nets := map[string][]string{"change": {"bridge"}, "release": {"bridge", "front"}}[op]
	if nets == nil {
		return nil
	}
	ns, err := link.NewNamespace()
	if err == nil {
		err = w.Attach(context.Background(), "web", ns, killWanted(w.Wiring, "web", nets...))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { ns.Close() })
	return ns
}

// finish does what comes next on a machine after an operation, killed or not.
func (w *world) finish(op string, ns *os.File) {
	w.t.Helper()
	ctx := context.Background()
	var err error
	switch op {
	case "attach": // the container's unit has ended: somebody's next start or stop
		w.gone(1)
		err = w.Reload(ctx)
	case "change": // the same change again, and then it works
		if err = w.Change(ctx, "web", ns, killWanted(w.Wiring, "web", "bridge", "front")); err == nil {
			w.listens(ns, "tcp", "192.0.2.1:8080")
			err = w.Release(ctx, "web")
		}
	case "release": // rm, or the next stop
		err = w.Release(ctx, "web")
	case "up": // its unit failed: down
		err = w.Release(ctx, "ns:pod")
	}
	if err != nil {
		w.t.Fatalf("%s: what comes next: %v", op, err)
	}
}

// listens checks that a port leads into a namespace.
func (w *world) listens(ns *os.File, proto, to string) {
	w.t.Helper()
	stop := w.serveOnce(ns, 80)
	defer stop()
	if got := w.ask(w.outside, proto, to); got != "once" {
		w.t.Errorf("%s: got %q", to, got)
	}
}

// TestRevived: the record of a pod whose namespace was made and not finished goes with the next change of anybody.
func TestRevived(t *testing.T) {
	w := newWorld(t)
	w.create(network.Network{Name: "front"}, false)
	ctx := context.Background()
	if _, err := w.Up(ctx, "pod", killWanted(w.Wiring, "ns:pod", "front")); err != nil {
		t.Fatal(err)
	}
	h, err := w.hold()
	if err != nil {
		t.Fatal(err)
	}
	e := h.endpoints["ns:pod"]
	e.Ready = false
	err = h.record(e)
	h.release()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	w.empty()
}

// TestMany is containers one after the other: nothing piles up, and an address that asks for itself is there again.
func TestMany(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	var addresses []netip.Addr
	for i := range 100 {
		c := w.start("web", []string{"bridge"}, "8080:80")
		if i > 0 && !slices.Equal(c.addresses, addresses) {
			t.Fatalf("%d: %v, had %v", i, c.addresses, addresses)
		}
		addresses = c.addresses
		c.ns.Close()
		if i%10 != 0 { // every tenth is left to the next to clean up
			if err := w.Release(ctx, "web"); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.releaseAll("web")
}

// TestFlushed: somebody has flushed the ruleset, or removed a bridge; reload brings it back.
func TestFlushed(t *testing.T) {
	w := newWorld(t)
	web := w.start("web", []string{"bridge"}, "8080:80")
	w.serve(web.ns, 80, "web")
	before := w.state()
	if out, err := w.judges.Command(t.Context(), "nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("nft: %v %s", err, out)
	}
	if got := w.ask(w.outside, "tcp", "192.0.2.1:8080"); got == "web 192.0.2.2" {
		t.Fatal("the rules are not gone")
	}
	if err := w.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if now := w.state(); now != before {
		t.Errorf("now\n%s\nbefore\n%s", now, before)
	}
	if got := w.ask(w.outside, "tcp", "192.0.2.1:8080"); got != "web 192.0.2.2" {
		t.Errorf("got %q", got)
	}
	w.releaseAll("web")
}

// TestNoResolver: a container starts although its names cannot be answered, and the next one tries again.
func TestNoResolver(t *testing.T) {
	w := newWorld(t)
	var warned []string
	w.Warn = func(err error) { warned = append(warned, err.Error()) }
	w.units.fail = os.ErrPermission
	w.start("web", []string{"bridge"})
	if len(warned) != 1 || !strings.Contains(warned[0], "names in the network bridge are not answered") {
		t.Errorf("warnings: %q", warned)
	}
	w.units.fail = nil
	delete(w.units.running, SocketUnit("pn-bridge"))
	w.start("db", []string{"bridge"})
	if !w.units.running[SocketUnit("pn-bridge")] {
		t.Error("nobody tried again")
	}
	w.releaseAll("web", "db")
}

// TestForwardingStays: a machine that forwarded before goes on, and is not closed.
func TestForwardingStays(t *testing.T) {
	w := newWorld(t)
	if err := link.SetForwarding(link.Forwarding{IPv4: true}, true); err != nil {
		t.Fatal(err)
	}
	w.start("web", []string{"bridge"})
	if out := w.nft(); !strings.Contains(strings.Join(strings.Fields(out), " "), "set closed { type nf_proto elements = { ipv6 } }") {
		t.Errorf("closed:\n%s", out)
	}
	if err := w.Release(context.Background(), "web"); err != nil {
		t.Fatal(err)
	}
	if got, err := link.ReadForwarding(); err != nil || !got.IPv4 || link.HasIPv6() && got.IPv6 {
		t.Errorf("forwarding: %+v %v", got, err)
	}
}
