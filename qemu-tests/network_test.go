package qemutests

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// TestTwoMachines puts two machines of one image on a network of their own: they have identities of their own, reach each other by address, fetch from each other, and see
// when a cable is pulled. One has its config from a web server, which fails at first.
func TestTwoMachines(t *testing.T) {
	s := begin(t, 2)
	image := s.image("1.0.0", "")
	lan := vm.NewNetwork()
	key, err := vm.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var machines [2]*vm.Machine
	var desk configDesk
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
		if i == 1 {
			config = desk.serve(t, config)
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
	var made [2][]string
	for i, m := range machines {
		up(t, m)
		made[i] = madeItself(t, m)
		t.Logf("machine %d was provisioned in %.2f s", i, provisioningTime(t, m))
		other := fmt.Sprintf("10.77.0.%d", 2-i)
		run(t, m, isReached(other)) // no boot waits for this network
		if out := run(t, m, "ping -c 3 -W 5 "+other); !strings.Contains(out, "3 packets received") {
			t.Errorf("got %s", out)
		}
		if got, want := run(t, m, "wget -q -O - http://"+other+":8080/word"), fmt.Sprintf("I am peer%d", 1-i); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}

	for i, what := range []string{"machine id", "host key"} {
		if made[0][i] == made[1][i] {
			t.Errorf("two machines of one image have the same %s: %s", what, made[0][i])
		}
	}
	desk.fetched(t, machines[1])

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
	run(t, a, isReached("10.77.0.2"))
	for _, m := range machines {
		m.AssertClean(t)
	}
}

// isReached is a command that waits until an address answers.
func isReached(address string) string {
	return "for i in $(seq 60); do ping -c 1 -W 2 " + address + " && exit 0; sleep 1; done; ip address; networkctl list; exit 1"
}

// A configDesk serves a machine its config by HTTP: the connection breaks at first, and then the server is not ready.
type configDesk struct {
	requests []string
	mu       sync.Mutex
}

// serve returns the config that the machine starts with: it names the server as the machine's resolver knows it, and what shall be there.
func (d *configDesk) serve(t *testing.T, config []byte) []byte {
	t.Helper()
	const word = "by wire"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.requests = append(d.requests, r.URL.Path)
		switch {
		case len(d.requests) == 1:
			if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
				c.Close()
			}
		case len(d.requests) == 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/word":
			io.WriteString(w, word)
		default:
			w.Write(config)
		}
	}))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, `{"ignition":{"version":"3.4.0","config":{"merge":[{"source":"http://_gateway:%[1]s/config.ign","verification":{"hash":"sha256-%[2]x"}}]}},
"storage":{"files":[{"path":"/var/srv/word","contents":{"source":"http://%[3]s:%[1]s/word","verification":{"hash":"sha256-%[4]x"}}}]}}`,
		port, sha256.Sum256(config), vm.HostAddress, sha256.Sum256([]byte(word)))
}

// fetched checks that the machine asked until it had everything, said so, and left nothing of the network it asked through.
func (d *configDesk) fetched(t *testing.T, m *vm.Machine) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if want := []string{"/config.ign", "/config.ign", "/config.ign", "/word"}; !slices.Equal(d.requests, want) {
		t.Errorf("the machine asked for %q, want %q", d.requests, want)
	}
	if got := run(t, m, "cat /var/srv/word"); got != "by wire" {
		t.Errorf("the fetched file says %q", got)
	}
	log := run(t, m, "journalctl -b -o cat -u ignition.service -u provision-network.service")
	for _, want := range []string{"config needs the network", "no answer, trying again", "503 Service Unavailable", "fetched config"} {
		if !strings.Contains(log, want) {
			t.Errorf("the journal does not say %q:\n%s", want, log)
		}
	}
	if out := run(t, m, "systemctl is-active provision-network.service; udevadm info --export-db | grep -c ANACONDA; ls /run/ignition.json /run/ignition/state 2>/dev/null; true"); out != "inactive\n0" {
		t.Errorf("got %q, want the network of provisioning stopped, udev free to assemble arrays, and no secret of the config left", out)
	}
}

// provisioningTime is how long the first boot of a machine took to read and apply its config: seconds from the first of provisioning
// until the system goes on, by the journal's monotonic clock.
func provisioningTime(t *testing.T, m *vm.Machine) float64 {
	t.Helper()
	var times []float64
	for line := range strings.Lines(run(t, m, "journalctl -b -o short-monotonic -t systemd | grep -E ': (Starting ignition.service|Finished ignition.service) '")) {
		stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "["), "]")
		seconds, err := strconv.ParseFloat(strings.TrimSpace(stamp), 64)
		if err != nil {
			t.Fatalf("no time in %q: %v", line, err)
		}
		times = append(times, seconds)
	}
	if len(times) != 2 {
		t.Fatalf("got %d lines about provisioning, want its begin and its end", len(times))
	}
	return times[1] - times[0]
}
