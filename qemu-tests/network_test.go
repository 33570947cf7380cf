package qemutests

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// TestTwoMachines puts two machines on a network of their own: they reach each other by address, fetch from each other, and see
// when a cable is pulled.
func TestTwoMachines(t *testing.T) {
	s := begin(t, 2)
	image := s.image("1.0.0", "")
	lan := vm.NewNetwork()
	key, err := vm.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var machines [2]*vm.Machine
	for i := range machines {
		name, mac := fmt.Sprintf("peer%d", i), fmt.Sprintf("52:54:00:00:00:0%d", i)
		config, err := provision.New().Hostname(name).SSHKey("root", key.AuthorizedKey()).
			File("/etc/systemd/network/10-lan.network", 0o644, fmt.Sprintf(`[Match]
MACAddress=%s
[Link]
RequiredForOnline=no
[Network]
Address=10.77.0.%d/24
LinkLocalAddressing=no
IPv6AcceptRA=no
`, mac, i+1)).
			File("/etc/lab/word", 0o644, "I am "+name+"\n").
			Unit("lab-web.service", true, "[Service]\nExecStart=/usr/bin/busybox httpd -f -p 8080 -h /etc/lab\n[Install]\nWantedBy=multi-user.target\n").
			JSON()
		if err != nil {
			t.Fatal(err)
		}
		machines[i] = s.start(vm.Config{
			Name: name, Dir: filepath.Join(s.dir, name), Disk: image.Disk(), Ignition: config, Key: key,
			NICs: []vm.NIC{{Network: lan, MAC: mac}},
		})
	}
	var both sync.WaitGroup
	for _, m := range machines {
		both.Go(func() { m.Run(t.Context(), "root", "systemctl is-system-running --wait") }) // up says what is wrong.
	}
	both.Wait()
	for i, m := range machines {
		up(t, m)
		other := fmt.Sprintf("10.77.0.%d", 2-i)
		if out := run(t, m, "ping -c 3 -W 5 "+other); !strings.Contains(out, "3 packets received") {
			t.Errorf("got %s", out)
		}
		if got, want := run(t, m, "wget -q -O - http://"+other+":8080/word"), fmt.Sprintf("I am peer%d", 1-i); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}

	// One end of the cable is pulled: that machine loses its carrier, and neither reaches the other.
	a, b := machines[0], machines[1]
	if err := b.SetLink(t.Context(), lan, false); err != nil {
		t.Fatal(err)
	}
	if out, err := a.Run(t.Context(), "root", "ping -c 2 -W 2 10.77.0.2"); err == nil {
		t.Errorf("got an answer through a pulled cable:\n%s", out)
	}
	if out := run(t, b, "ip -br link | grep 52:54:00:00:00:01"); !strings.Contains(out, "NO-CARRIER") {
		t.Errorf("got %q, want no carrier", out)
	}
	if err := b.SetLink(t.Context(), lan, true); err != nil {
		t.Fatal(err)
	}
	run(t, a, "for i in 1 2 3 4 5 6 7 8 9 10; do ping -c 1 -W 2 10.77.0.2 && exit 0; sleep 1; done; exit 1")
	for _, m := range machines {
		m.AssertClean(t)
	}
}
