package link

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/runtime/network"
)

// alone puts the test into a network namespace of its own, as the machine.
func alone(t *testing.T) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT CHECKED without root: needs a network namespace")
	}
	runtime.LockOSThread() // never unlocked
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	m, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func testNetwork() *network.Network {
	n := &network.Network{Name: "front", MTU: 1400, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/24")}, {Prefix: netip.MustParsePrefix("fd01::/64")}}}
	if err := n.Validate(nil, nil); err != nil {
		panic(err)
	}
	return n
}

// ip is the judge; it prints the namespace's state.
func ip(t *testing.T, ns *os.File, args ...string) string {
	t.Helper()
	cmd := testenv.Judges(t).Command(t.Context(), "ip", args...)
	var (
		out []byte
		err error
	)
	run := func() (err error) { out, err = cmd.CombinedOutput(); return err }
	if ns == nil {
		err = run()
	} else {
		err = apart(func() error {
			if err := Enter(ns); err != nil {
				return err
			}
			return run()
		})
	}
	if err != nil {
		t.Fatalf("ip %q: %v: %s", args, err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

func TestPlug(t *testing.T) {
	m := alone(t)
	n := testNetwork()
	for range 2 { // the second time it is there
		if err := m.EnsureBridge(n); err != nil {
			t.Fatal(err)
		}
	}
	ns, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := n.Plan("web", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := network.NewLink("web", n, network.Attachment{Network: "front", Addresses: addresses}, "eth0")
	if err := m.Plug("web", l, int(ns.Fd()), 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ns   *os.File
		args string
		want []string
	}{
		{ns, "-d addr show eth0", []string{"link/ether " + network.HardwareAddr(addresses...).String(), "mtu 1400", "inet " + addresses[0].String() + "/24", "inet6 " + addresses[1].String() + "/64 scope global nodad", "state UP"}},
		{ns, "addr show lo", []string{"inet 127.0.0.1/8"}},
		{ns, "route", []string{"default via 10.1.0.1 dev eth0 metric 100"}},
		{ns, "-6 route", []string{"default via fd01::1 dev eth0 metric 100"}},
		{nil, "-d link show " + l.Host, []string{"alias proa container web network front", "master pn-front", "state UP"}},
		{nil, "addr show pn-front", []string{"inet 10.1.0.1/24", "inet6 fd01::1/64", "mtu 1400"}},
	} {
		out := ip(t, c.ns, strings.Fields(c.args)...)
		for deadline := time.Now().Add(5 * time.Second); strings.Contains(out, "fe80::") && strings.Contains(out, "tentative") && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond) // the kernel's worker takes up the link-local address a moment later
			out = ip(t, c.ns, strings.Fields(c.args)...)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("ip %s: %s: want %q", c.args, out, w)
			}
		}
		if strings.Contains(out, "tentative") {
			t.Errorf("ip %s: %s: an address is tentative", c.args, out)
		}
	}
	have, err := m.List()
	if err != nil || have.Bridges["pn-front"] != "front" || !have.Veths[l.Host] || len(have.Bridges)+len(have.Veths) != 2 {
		t.Errorf("list: %+v %v", have, err)
	}
	if used, err := m.Used(func(string) bool { return false }); err != nil || !strings.Contains(fmt.Sprint(used), "10.1.0.0/24") {
		t.Errorf("used: %v %v", used, err)
	}
	if used, err := m.Used(func(b string) bool { return b == "pn-front" }); err != nil || strings.Contains(fmt.Sprint(used), "10.1.0.0/24") {
		t.Errorf("used by others: %v %v", used, err)
	}
	for range 2 {
		for _, name := range []string{l.Host, "pn-front"} {
			if err := m.Remove(name); err != nil {
				t.Error(err)
			}
		}
	}
	if have, _ := m.List(); len(have.Bridges)+len(have.Veths) != 0 {
		t.Errorf("stays: %+v", have)
	}
}

// Interfaces of others are neither taken over nor removed.
func TestForeignInterface(t *testing.T) {
	m := alone(t)
	ip(t, nil, "link", "add", "pn-front", "type", "bridge")
	if err := m.EnsureBridge(testNetwork()); err == nil || !strings.Contains(err.Error(), "ip link del pn-front") {
		t.Errorf("got %v", err)
	}
	ip(t, nil, "link", "set", "pn-front", "alias", "somebody's")
	if err := m.EnsureBridge(testNetwork()); err == nil || !strings.Contains(err.Error(), "somebody's") {
		t.Errorf("got %v", err)
	}
	if err := m.Remove("pn-front"); err == nil || !strings.Contains(err.Error(), "not made by containerctl") {
		t.Errorf("got %v", err)
	}
}

// Killed between making an interface and naming it: it is ours all the same.
func TestUnnamed(t *testing.T) {
	m := alone(t)
	n := testNetwork()
	ip(t, nil, "link", "add", "pn-front", "address", network.HardwareAddr(n.Subnets[0].Gateway).String(), "type", "bridge")
	ip(t, nil, "link", "add", "pv1", "address", network.HostHardwareAddr("pv1").String(), "type", "veth", "peer", "name", "other")
	have, err := m.List()
	if err != nil || len(have.Bridges) != 1 || len(have.Veths) != 1 || !have.Veths["pv1"] {
		t.Errorf("list: %+v %v", have, err)
	}
	if err := m.EnsureBridge(n); err != nil {
		t.Error(err)
	}
	if out := ip(t, nil, "-d", "link", "show", "pn-front"); !strings.Contains(out, "alias proa network front") {
		t.Error(out)
	}
	if err := m.Remove("pv1"); err != nil {
		t.Error(err)
	}
}

func TestForwarding(t *testing.T) {
	alone(t)
	was, err := ReadForwarding()
	if err != nil || was.IPv4 || was.IPv6 && HasIPv6() {
		t.Fatalf("in a new namespace: %+v %v", was, err)
	}
	for _, on := range []bool{true, false} {
		if err := SetForwarding(Forwarding{IPv4: true, IPv6: true}, on); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadForwarding(); err != nil || got.IPv4 != on || HasIPv6() && got.IPv6 != on {
			t.Errorf("after %v: %+v %v", on, got, err)
		}
	}
}
