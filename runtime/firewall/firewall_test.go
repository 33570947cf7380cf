package firewall

import (
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/runtime/network"
)

// alone puts the test into a network namespace of its own.
func alone(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT CHECKED without root: needs a network namespace")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// nft is the judge: the distribution's own program.
func nft(t *testing.T, args ...string) string {
	t.Helper()
	out, err := testenv.Judges(t).Command(t.Context(), "nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %q: %v: %s", args, err, out)
	}
	return string(out)
}

// table is the table as nft prints it, without priorities, for which its versions have different words.
func table(t *testing.T) string {
	t.Helper()
	return regexp.MustCompile(` priority [^;]*;`).ReplaceAllString(nft(t, "-s", "list", "table", "inet", "proa"), ";")
}

func rules() network.Rules {
	a := netip.MustParseAddr
	to := netip.MustParseAddrPort
	return network.Rules{
		Bridges: []string{"pn-bridge", "pn-back"}, Internal: []string{"pn-back"},
		Resolvers: []netip.Addr{a("10.88.0.1"), a("fd00::1")},
		Forwards: []network.Forward{
			{Port: 8080, Protocol: "tcp", To: to("10.88.0.2:80")},
			{Port: 8080, Protocol: "tcp", To: to("[fd00::2]:80")},
			{From: a("192.0.2.1"), Port: 53, Protocol: "udp", To: to("10.88.0.3:53")},
			{From: a("2001:db8::1"), Port: 53, Protocol: "udp", To: to("[fd00::3]:5353")},
		},
		Members: []network.Member{{Address: a("10.88.0.2"), Bridge: "pn-bridge"}, {Address: a("fd00::2"), Bridge: "pn-bridge"}},
		Closed4: true,
	}
}

func apply(t *testing.T, r network.Rules) {
	t.Helper()
	f, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Apply(r); err != nil {
		t.Fatal(err)
	}
}

func TestRulesAsNftReadsThem(t *testing.T) {
	alone(t)
	const other = "table ip other {\n\tchain c {\n\t\ttype filter hook forward priority filter; policy drop;\n\t\tcounter packets 0 bytes 0\n\t}\n}\n"
	nft(t, strings.ReplaceAll(other, "packets 0 bytes 0", ""))
	apply(t, network.Rules{})
	if got := nft(t, "list", "ruleset"); got != other {
		t.Errorf("without networks:\n%s", got)
	}
	apply(t, rules())
	got := table(t)
	want, err := os.ReadFile("testdata/table.nft")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("nft reads:\n%s", got)
	}
	// A change of one port leaves the others' elements, and the rules with their handles, alone.
	handles := nft(t, "-a", "list", "chain", "inet", "proa", "publish")
	r := rules()
	r.Forwards = append(r.Forwards[1:], network.Forward{Port: 9090, Protocol: "tcp", To: netip.MustParseAddrPort("10.88.0.2:90")})
	r.Forwards[0].To = netip.MustParseAddrPort("[fd00::4]:80")
	apply(t, r)
	if nft(t, "-a", "list", "chain", "inet", "proa", "publish") != handles {
		t.Error("a change of ports has changed rules")
	}
	if got := nft(t, "list", "map", "inet", "proa", "ports4"); !strings.Contains(got, "tcp . 9090 : 10.88.0.2 . 90 }") {
		t.Errorf("ports4: %s", got)
	}
	if got := nft(t, "list", "map", "inet", "proa", "ports6"); !strings.Contains(got, "tcp . 8080 : fd00::4 . 80 }") {
		t.Errorf("ports6: %s", got)
	}
	// Built by another release: made anew.
	nft(t, "delete", "set", "inet", "proa", layout)
	nft(t, "add", "chain", "inet", "proa", "old")
	apply(t, rules())
	if got := table(t); got != string(want) {
		t.Errorf("after another release's table:\n%s", got)
	}
	apply(t, network.Rules{})
	apply(t, network.Rules{})
	if got := nft(t, "list", "ruleset"); got != other {
		t.Errorf("after the last network:\n%s", got)
	}
}

// TestManyPorts is a range as large as one flag may be, in one transaction.
func TestManyPorts(t *testing.T) {
	alone(t)
	r := rules()
	ports, err := network.ParsePublish("10000-14095:10000-14095/udp")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		r.Forwards = append(r.Forwards, network.Forward{Port: p.HostPort, Protocol: p.Protocol, To: netip.AddrPortFrom(netip.MustParseAddr("fd00::2"), p.Port)})
	}
	apply(t, r)
	if got := strings.Count(nft(t, "list", "map", "inet", "proa", "ports6"), "udp . "); got != len(ports) {
		t.Errorf("%d elements, want %d", got, len(ports))
	}
	apply(t, rules())
	if got := strings.Count(nft(t, "list", "map", "inet", "proa", "ports6"), "udp . "); got != 0 {
		t.Errorf("%d elements stay", got)
	}
}
