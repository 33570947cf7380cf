package ctl

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/network"
	"github.com/proa-os/proa/runtime/store"
)

// parseNetwork is what run makes of flags.
func parseNetwork(args ...string) (*store.Container, error) {
	var n networkFlags
	k := &store.Container{Name: "web"}
	s := new(flagset.Set)
	n.flags(s, k)
	if _, err := s.Parse(args, true); err != nil {
		return nil, err
	}
	return k, n.check(k)
}

func TestNetworkFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "bridge [{bridge [] []}] []"},
		{"--network default -p 80:80", "bridge [{bridge [] []}] [*:80->80/tcp]"},
		{"--network front --network back:ip=10.2.0.2,alias=db,alias=store", "bridge [{front [] []} {back [10.2.0.2] [db store]}] []"},
		{"--network name=front,ip6=fd00::2 --network-alias www", "bridge [{front [fd00::2] [www]}] []"},
		{"--network front --ip 10.1.0.2 --ip6 fd00::2", "bridge [{front [10.1.0.2 fd00::2] []}] []"},
		{"--net host", "host [] []"},
		{"--network container:db", "container:db [] []"},
		{"--network ns:/run/proa/netns/pod", "ns:/run/proa/netns/pod [] []"},
		{"--network host --network front", "does not go together with --network host"},
		{"--network front --network none", "does not go together with --network bridge"},
		{"--network front --network front", "given twice"},
		{"--network front:mtu=9", "want ip, ip6 or alias"},
		{"--network a/b", "network name"},
		{"--network container:", "want container:NAME"},
		{"--network ns:pod", "ns:PATH"},
		{"--network none -p 80:80", "-p and -P do not go together with --network none"},
		{"--network host -P", "-p and -P do not go together with --network host"},
		{"--expose 1.2.3.4:80:80", "want PORT[-PORT][/tcp|udp]"},
		{"--network host --ip 10.0.0.1", "do not go together with --network host"},
		{"--network a --network b --ip 10.0.0.1", "NAME:ip=ADDRESS"},
		{"--network-alias a/b", "alias"},
		{"--ip ten", "want an IP address"},
		{"--add-host db", "want NAME:ADDRESS"},
		{"--add-host db:ten", "want NAME:ADDRESS"},
	} {
		k, err := parseNetwork(strings.Fields(c.args)...)
		got := ""
		if k != nil {
			got = fmt.Sprint(k.Network, " ", k.Networks, " ", k.Publish)
		}
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: got %s, want %s", c.args, got, c.want)
		}
	}
	k, err := parseNetwork("--add-host", "db:10.0.0.1", "--add-host", "six=[fd00::1]", "--add-host", "me:host-gateway", "--dns", "192.0.2.1", "--dns-search", "example.org", "--dns-option", "ndots:2")
	if err != nil || fmt.Sprint(k.Hosts, k.DNS, k.DNSSearch, k.DNSOptions) != "[db:10.0.0.1 six:fd00::1 me:host-gateway] [192.0.2.1] [example.org] [ndots:2]" {
		t.Errorf("got %+v %v", k, err)
	}
}

func TestNaming(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("# machine\nnameserver 192.0.2.53\nnameserver bad\nsearch lan.example corp.example\noptions edns0 trust-ad\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	machine, own := readResolv(file), []netip.Addr{netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("fd00::2")}
	gateway := netip.MustParseAddr("10.88.0.1")
	dns := []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	for _, c := range []struct {
		what   string
		n      naming
		resolv string
	}{
		{"bridge", naming{k: &store.Container{Network: network.Default}, resolver: gateway}, "nameserver 10.88.0.1\nsearch lan.example corp.example\noptions ndots:0\n"},
		{"bridge, all said", naming{k: &store.Container{Network: network.Default, DNS: dns, DNSSearch: []string{"."}, DNSOptions: []string{"ndots:1"}}, resolver: gateway}, "nameserver 10.88.0.1\noptions ndots:1\n"},
		{"without names", naming{k: &store.Container{Network: network.Default}}, "nameserver 192.0.2.53\nsearch lan.example corp.example\noptions edns0 trust-ad\n"},
		{"without names, the network's servers", naming{k: &store.Container{Network: network.Default}, fallback: dns}, "nameserver 198.51.100.1\nsearch lan.example corp.example\noptions edns0 trust-ad\n"},
		{"host", naming{k: &store.Container{Network: "host"}}, "nameserver 192.0.2.53\nsearch lan.example corp.example\noptions edns0 trust-ad\n"},
		{"host, a server", naming{k: &store.Container{Network: "host", DNS: dns}}, "nameserver 198.51.100.1\nsearch lan.example corp.example\noptions edns0 trust-ad\n"},
		{"none", naming{k: &store.Container{Network: "none"}}, ""},
	} {
		c.n.machine = machine
		if got := c.n.resolv(); got != c.resolv {
			t.Errorf("%s: got %q, want %q", c.what, got, c.resolv)
		}
	}
	n := naming{k: &store.Container{Name: "web", Hostname: "front", Hosts: []string{"db:10.0.0.9", "gate:host-gateway", "six:fd00::9"}}, addresses: own, gateway: gateway}
	const local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if got := n.hosts(); got != local+"10.88.0.2\tfront web\nfd00::2\tfront web\n10.0.0.9\tdb\n10.88.0.1\tgate\nfd00::9\tsix\n" {
		t.Errorf("hosts: %q", got)
	}
	n = naming{k: &store.Container{Name: "web", Hosts: []string{"gate:host-gateway"}}}
	if got := n.hosts(); got != local+"127.0.1.1\tweb\n127.0.0.1\tgate\n" {
		t.Errorf("hosts without a network: %q", got)
	}
	if got := portList(publish(t, "8000-8002:80-82", "90:90/udp", "92:92/udp")); got != "*:8000-8002->80-82/tcp, *:90->90/udp, *:92->92/udp" {
		t.Errorf("ports: %q", got)
	}
}

func publish(t *testing.T, specs ...string) (out []network.Port) {
	t.Helper()
	for _, s := range specs {
		p, err := network.ParsePublish(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p...)
	}
	return out
}

// TestPublishExposed: -P publishes what the image and --expose name, but for what -p does already.
func TestPublishExposed(t *testing.T) {
	image := map[string]struct{}{"80/tcp": {}, "53/udp": {}, "443": {}, "9000-9001/tcp": {}}
	for _, c := range []struct {
		args, want string
		image      map[string]struct{}
	}{
		{"-p 8080:80", "[*:8080->80/tcp]", image},
		{"-P", "[*:0->443/tcp *:0->53/udp *:0->80/tcp *:0->9000/tcp *:0->9001/tcp]", image},
		{"-P -p 8080:80 -p 127.0.0.1:53:53", "[*:8080->80/tcp 127.0.0.1:53->53/tcp *:0->443/tcp *:0->53/udp *:0->9000/tcp *:0->9001/tcp]", image},
		{"-P --expose 80 --expose 7/udp", "[*:0->80/tcp *:0->7/udp]", map[string]struct{}{"80/tcp": {}}},
		{"-P", "[]", nil},
		{"-P", `-P: the image lab/x exposes "80/sctp": protocol "sctp"`, map[string]struct{}{"80/sctp": {}}},
		{"-P", "more than 1024 ports", map[string]struct{}{"1-2000": {}}},
	} {
		k, n := &store.Container{Name: "web", Image: "lab/x"}, networkFlags{}
		s := new(flagset.Set)
		n.flags(s, k)
		if _, err := s.Parse(strings.Fields(c.args), true); err != nil {
			t.Fatal(err)
		}
		err := n.publishExposed(k, c.image)
		if got := fmt.Sprint(k.Publish, err); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %s, want %s", c.args, got, c.want)
		}
	}
}
