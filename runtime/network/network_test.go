package network

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

func TestParsePublish(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"80", "*:0->80/tcp"},
		{"8080:80", "*:8080->80/tcp"},
		{"8080:80/udp", "*:8080->80/udp"},
		{"127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"},
		{"127.0.0.1::80", "127.0.0.1:0->80/tcp"},
		{":8080:80", "*:8080->80/tcp"},
		{"[::1]:53:53/udp", "[::1]:53->53/udp"},
		{"[::]:80:80", "[::]:80->80/tcp"},
		{"8000-8002:80-82", "*:8000->80/tcp *:8001->81/tcp *:8002->82/tcp"},
		{"80-81", "*:0->80/tcp *:0->81/tcp"},
	} {
		got, err := ParsePublish(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		var words []string
		for _, p := range got {
			words = append(words, p.String())
		}
		if s := strings.Join(words, " "); s != c.want {
			t.Errorf("%s: got %s, want %s", c.in, s, c.want)
		}
	}
	for in, want := range map[string]string{
		"": "want [IP", "0": "port \"0\"", "65536:80": "65536", "80:": "want", "8080:80/sctp": "sctp", "80-90:80": "differ", "90-80": "90-80", "1.2.3:80:80": "1.2.3",
		"::1:80:80": "want", "[127.0.0.1]:80:80": "want", "[::1%lo]:80:80": "want", "[::1]80:80": "want", "a:b": "want", "1-5000": "at most", "1:2:3:4": "want", "+1:80": "want", "80/tcp/": "tcp/",
	} {
		if got, err := ParsePublish(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v %v, want an error with %q", in, got, err, want)
		}
	}
}

func FuzzParsePublish(f *testing.F) {
	f.Add("[::1]:8000-8001:80-81/udp")
	f.Fuzz(func(t *testing.T, in string) {
		ports, err := ParsePublish(in)
		if err != nil {
			return
		}
		for _, p := range ports {
			again, err := ParsePublish(strings.NewReplacer("*:", "", "->", ":", ":0:", "::").Replace(p.String()))
			if p.HostPort != 0 && (err != nil || len(again) != 1 || again[0] != p) {
				t.Fatalf("%q: %s reads as %v %v", in, p, again, err)
			}
		}
	})
}

func TestPlanPorts(t *testing.T) {
	ports := func(specs ...string) (out []Port) {
		for _, s := range specs {
			p, err := ParsePublish(s)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, p...)
		}
		return out
	}
	others := []Holder{{Owner: "web", Ports: ports("80:80", "127.0.0.1:53:53/udp", "[::1]:90:90")}}
	free := func(p Port) error {
		if p.HostPort == 22 || p.HostPort == 20000 {
			return fmt.Errorf("port %d: sshd (pid 1) has it", p.HostPort)
		}
		return nil
	}
	for _, c := range []struct {
		in   []Port
		want string // the error, or the ports
	}{
		{ports("80:80"), "port *:80/tcp: the container web has it"},
		{ports("127.0.0.1:80:80"), "the container web has it"},
		{ports("0.0.0.0:53:53/udp"), "the container web has it"},
		{ports("53:53/udp"), "the container web has it"},
		{ports("53:53/tcp"), "[*:53->53/tcp]"},
		{ports("127.0.0.2:53:53/udp"), "[127.0.0.2:53->53/udp]"},
		{ports("0.0.0.0:90:90"), "[0.0.0.0:90->90/tcp]"},
		{ports("[::]:90:90"), "the container web has it"},
		{ports("22:22"), "sshd (pid 1) has it"},
		{ports("70:70", "70:71"), "published twice"},
		{ports("80", "81"), "[*:20001->80/tcp *:20002->81/tcp]"},
	} {
		got, err := PlanPorts(c.in, others, free)
		if s := fmt.Sprint(got, err); !strings.Contains(s, c.want) {
			t.Errorf("%v: got %s, want %s", c.in, s, c.want)
		}
	}
}

func TestChoose(t *testing.T) {
	got, err := Choose(nil, nil, true, []byte{1, 2, 3, 4, 5})
	if err != nil || fmt.Sprint(got[0].Prefix, got[1].Prefix) != "10.88.0.0/24 fd01:203:405::/64" {
		t.Errorf("got %v %v", got, err)
	}
	// What the machine routes is left out; a default route is no reason.
	got, err = Choose([]*Network{{Subnets: []Subnet{{Prefix: prefix("10.88.2.0/24")}}}}, []netip.Prefix{prefix("0.0.0.0/0"), prefix("10.88.0.0/23"), prefix("fe80::/64")}, false, nil)
	if err != nil || len(got) != 1 || got[0].Prefix != prefix("10.88.3.0/24") {
		t.Errorf("got %v %v", got, err)
	}
	if got, err := Choose(nil, []netip.Prefix{prefix("10.0.0.0/8")}, false, nil); err == nil {
		t.Errorf("got %v in a full pool", got)
	}
}

func valid(t *testing.T, subnets ...string) *Network {
	t.Helper()
	n := &Network{Name: "net"}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, Subnet{Prefix: prefix(s)})
	}
	if err := n.Validate(nil, nil); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestValidate(t *testing.T) {
	n := valid(t, "10.1.0.0/24", "fd00::/64")
	if n.Subnets[0].Gateway != addr("10.1.0.1") || n.Subnets[1].Gateway != addr("fd00::1") || n.Bridge != "pn-net" {
		t.Errorf("got %+v", n)
	}
	inside := rangeOf(prefix("10.2.0.128/25"))
	reaching := Range{addr("10.3.0.250"), addr("10.3.1.2")}
	for want, bad := range map[string]Network{
		"network name":         {Name: "a/b"},
		"meaning of its own":   {Name: "none"},
		"exists":               {Name: "net"},
		"bits behind":          {Name: "x", Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.3.0.1/24")}}},
		"room for two":         {Name: "x", Subnets: []Subnet{{Prefix: prefix("10.3.0.0/31")}}},
		"may be routed":        {Name: "x", Subnets: []Subnet{{Prefix: prefix("127.0.0.0/24")}}},
		"not an address of":    {Name: "x", Subnets: []Subnet{{Prefix: prefix("10.3.0.0/24"), Gateway: addr("10.3.0.255")}}},
		"not inside":           {Name: "x", Subnets: []Subnet{{Prefix: prefix("10.3.0.0/24"), Range: &inside}}},
		"range 10.3.0.250-10":  {Name: "x", Subnets: []Subnet{{Prefix: prefix("10.3.0.0/24"), Range: &reaching}}},
		"of the network net":   {Name: "x", Subnets: []Subnet{{Prefix: prefix("10.1.0.0/16")}}},
		"10.9.0.0/16, which":   {Name: "x", Subnets: []Subnet{{Prefix: prefix("10.9.7.0/24")}}},
		"with 10.4.0.0/24":     {Name: "x", Subnets: []Subnet{{Prefix: prefix("10.4.0.0/24")}, {Prefix: prefix("10.4.0.0/25")}}},
		"that of the network ": {Name: "x", Bridge: "pn-net"},
		"want 1 to 15":         {Name: "x", Bridge: "a b"},
	} {
		if err := bad.Validate([]*Network{n}, []netip.Prefix{prefix("10.9.0.0/16"), prefix("::/0")}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", bad, err, want)
		}
	}
	if err := (&Network{Name: "net"}).Validate([]*Network{n}, nil); !errors.Is(err, ErrExists) {
		t.Errorf("got %v", err)
	}
	if b := BridgeName(strings.Repeat("n", 63)); len(b) != 15 || b == BridgeName(strings.Repeat("n", 62)) {
		t.Errorf("bridge %s", b)
	}
}

func TestPlan(t *testing.T) {
	n := valid(t, "10.1.0.0/24", "fd00::/64")
	first, err := n.Plan("web", nil, nil)
	if err != nil || len(first) != 2 || !prefix("10.1.0.0/24").Contains(first[0]) || !prefix("fd00::/64").Contains(first[1]) {
		t.Fatalf("got %v %v", first, err)
	}
	if again, _ := n.Plan("web", nil, nil); !reflect.DeepEqual(again, first) {
		t.Errorf("the same name has %v and %v", first, again)
	}
	other, _ := n.Plan("web", nil, map[netip.Addr]string{first[0]: "db"})
	if other[0] == first[0] || other[1] != first[1] {
		t.Errorf("got %v, %s being taken", other, first[0])
	}
	asked, err := n.Plan("web", []netip.Addr{addr("fd00::7")}, map[netip.Addr]string{addr("fd00::7"): "web"})
	if err != nil || asked[1] != addr("fd00::7") || asked[0] != first[0] {
		t.Errorf("got %v %v", asked, err)
	}
	for want, a := range map[string][]netip.Addr{
		"db has it": {addr("10.1.0.9")}, "cannot have": {addr("10.1.0.1")}, "container in": {addr("10.1.0.255")}, "not in the network": {addr("10.2.0.1")},
		"want one in": {addr("10.1.0.7"), addr("10.1.0.8")},
	} {
		if got, err := n.Plan("web", a, map[netip.Addr]string{addr("10.1.0.9"): "db"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v %v, want %q", a, got, err, want)
		}
	}
	// Every address of a small subnet is given exactly once, and then there is none.
	r := Range{addr("10.5.0.9"), addr("10.5.0.15")}
	small := &Network{Name: "s", Subnets: []Subnet{{Prefix: prefix("10.5.0.0/28"), Range: &r}}}
	if err := small.Validate(nil, nil); err != nil {
		t.Fatal(err)
	}
	taken := map[netip.Addr]string{}
	for i := range 6 { // .9 to .15, of which .15 is for all
		a, err := small.Plan(fmt.Sprint("c", i), nil, taken)
		if err != nil || taken[a[0]] != "" || a[0].Less(r.First) || a[0] == addr("10.5.0.15") {
			t.Fatalf("%d: got %v %v with %v", i, a, err, taken)
		}
		taken[a[0]] = fmt.Sprint("c", i)
	}
	if a, err := small.Plan("more", nil, taken); err == nil {
		t.Errorf("got %v in a full range", a)
	}
}

// TestRange: prefixes stay the text they always were, and what is none is first and last.
func TestRange(t *testing.T) {
	for in, want := range map[string]string{
		"10.2.0.128/25": "10.2.0.128/25", "10.2.0.7/24": "10.2.0.0/24", "10.2.0.5-10.2.0.9": "10.2.0.5-10.2.0.9", "10.2.0.8-10.2.0.15": "10.2.0.8/29",
		"fd00::/64": "fd00::/64", "fd00::1-fd00::ff:1": "fd00::1-fd00::ff:1", "10.2.0.1-10.2.0.1": "10.2.0.1/32", "0.0.0.0/0": "0.0.0.0/0",
	} {
		r, err := ParseRange(in)
		b, _ := r.MarshalText()
		var again Range
		if err != nil || string(b) != want || again.UnmarshalText(b) != nil || again != r {
			t.Errorf("%s: %s %v, want %s; again %v", in, b, err, want, again)
		}
	}
	for _, bad := range []string{"", "-", "10.0.0.1", "10.0.0.2-10.0.0.1", "10.0.0.1-fd00::1", "10.0.0.1-", "fe80::1%a-fe80::2", "10.0.0.0/33"} {
		if r, err := ParseRange(bad); err == nil {
			t.Errorf("%q: taken as %v", bad, r)
		}
	}
	if r, _ := ParseRange("fd00::/16"); r.size(tries) != tries {
		t.Errorf("size %d", r.size(tries))
	}
}

func TestHardwareAddr(t *testing.T) {
	if got := HardwareAddr(addr("10.88.0.2"), addr("fd00::2")).String(); got != "0e:50:0a:58:00:02" {
		t.Error(got)
	}
	a, b := HardwareAddr(addr("fd00::2")), HardwareAddr(addr("fd00::3"))
	if a.String() == b.String() || a[0]&3 != 2 || !OurHardwareAddr(a) || !OurHardwareAddr(HostHardwareAddr("pv1")) || OurHardwareAddr([]byte{2, 0x50, 0, 0, 0, 0}) {
		t.Error(a, b)
	}
}

// twoNets is web in front and back, db in back, which has no way out, and job in a network without names.
func twoNets() (map[string]*Network, []*Endpoint) {
	nets := map[string]*Network{
		"front": {Name: "front", Bridge: "pn-front", DNS: []netip.Addr{addr("192.0.2.53")}, Subnets: []Subnet{{Prefix: prefix("10.1.0.0/24"), Gateway: addr("10.1.0.1")}, {Prefix: prefix("fd01::/64"), Gateway: addr("fd01::1")}}},
		"back":  {Name: "back", Bridge: "pn-back", Internal: true, Subnets: []Subnet{{Prefix: prefix("10.2.0.0/24"), Gateway: addr("10.2.0.1")}}},
		"mute":  {Name: "mute", Bridge: "pn-mute", DisableDNS: true, Subnets: []Subnet{{Prefix: prefix("10.3.0.0/24"), Gateway: addr("10.3.0.1")}}},
	}
	link := func(owner, net, name string, aliases []string, as ...string) Link {
		var list []netip.Addr
		for _, a := range as {
			list = append(list, addr(a))
		}
		return NewLink(owner, nets[net], Attachment{Network: net, Addresses: list, Aliases: aliases}, name)
	}
	return nets, []*Endpoint{
		{Owner: "web", Links: []Link{link("web", "back", "eth0", []string{"www"}, "10.2.0.2"), link("web", "front", "eth1", []string{"WWW", "site"}, "10.1.0.2", "fd01::2")},
			Ports: []Port{{HostPort: 8080, Port: 80, Protocol: "tcp"}, {HostIP: addr("127.0.0.1"), HostPort: 53, Port: 53, Protocol: "udp"}, {HostIP: addr("::"), HostPort: 9, Port: 9, Protocol: "tcp"}}},
		{Owner: "ns:db", Links: []Link{link("ns:db", "back", "eth0", nil, "10.2.0.3")}, Ports: []Port{{HostPort: 5432, Port: 5432, Protocol: "tcp"}}},
		{Owner: "job", Links: []Link{link("job", "mute", "eth0", nil, "10.3.0.2")}, DNS: []netip.Addr{addr("192.0.2.1")}},
	}
}

func TestNames(t *testing.T) {
	n := NamesOf(twoNets())
	find := func(client, name string) string {
		a, ok := n.Find(n.Clients[addr(client)], name)
		return fmt.Sprint(a, ok)
	}
	for _, c := range [][3]string{
		{"10.2.0.3", "web", "[10.2.0.2] true"}, {"10.2.0.3", "WEB.", "[10.2.0.2] true"}, {"10.2.0.3", "www", "[10.2.0.2] true"}, {"10.2.0.3", "web.back", "[10.2.0.2] true"},
		{"10.2.0.3", "site", "[] false"}, {"10.2.0.3", "web.front", "[] false"}, {"10.2.0.2", "db", "[10.2.0.3] true"}, {"fd01::2", "db", "[10.2.0.3] true"},
		{"10.1.0.2", "site.front", "[10.1.0.2 fd01::2] true"}, {"10.3.0.2", "job", "[] false"}, {"10.3.0.2", "web", "[] false"},
	} {
		if got := find(c[0], c[1]); got != c[2] {
			t.Errorf("%s asks for %s: got %s, want %s", c[0], c[1], got, c[2])
		}
	}
	web, db := n.Clients[addr("10.1.0.2")], n.Clients[addr("10.2.0.3")]
	if fmt.Sprint(web.Servers, web.Sealed, db.Servers, db.Sealed) != "[192.0.2.53] false [] true" {
		t.Errorf("got %+v and %+v", web, db)
	}
	if _, ok := n.Clients[addr("10.3.0.2")]; ok {
		t.Error("a container in a network without names may ask")
	}
	if fmt.Sprint(n.Resolvers) != "[10.2.0.1 10.1.0.1 fd01::1 10.3.0.1]" {
		t.Error(n.Resolvers)
	}
	if name, ok := n.FindAddr(db, addr("10.2.0.2")); name != "web.back" || !ok {
		t.Errorf("10.2.0.2 is %q", name)
	}
	if name, ok := n.FindAddr(db, addr("10.1.0.2")); ok {
		t.Errorf("db learns that 10.1.0.2 is %q", name)
	}
}

func TestRulesOf(t *testing.T) {
	r := RulesOf(twoNets())
	if got := fmt.Sprint(r.Bridges, r.Internal, r.Resolvers); got != "[pn-back pn-front pn-mute] [pn-back] [10.2.0.1 10.1.0.1 fd01::1]" {
		t.Error(got)
	}
	if len(r.Members) != 5 || r.Members[2] != (Member{Address: addr("fd01::2"), Bridge: "pn-front"}) {
		t.Error(r.Members)
	}
	var got []string
	for _, f := range r.Forwards {
		got = append(got, fmt.Sprintf("%v %d/%s>%s", f.From, f.Port, f.Protocol, f.To))
	}
	// Into the network with a way out, never into back; db, which is only there, has none.
	want := "invalid IP 8080/tcp>10.1.0.2:80|invalid IP 8080/tcp>[fd01::2]:80|127.0.0.1 53/udp>10.1.0.2:53|invalid IP 9/tcp>[fd01::2]:9"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestOptions(t *testing.T) {
	n := new(Network)
	if err := errors.Join(n.AddOption("mtu", "1400"), n.AddOption("com.docker.network.bridge.name", "br1")); err != nil || n.MTU != 1400 || n.Bridge != "br1" {
		t.Errorf("%v %+v", err, n)
	}
	if err := n.AddOption("isolate", "true"); err != nil {
		t.Error(err)
	}
	for _, o := range [][2]string{{"isolate", "false"}, {"mtu", "1"}, {"vlan", "1"}, {"com.docker.network.bridge.name", "a/b"}} {
		if n.AddOption(o[0], o[1]) == nil {
			t.Errorf("%v is taken", o)
		}
	}
}
