package qemutests

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/qemu-tests/vm"
)

// networks runs containers in networks: they find each other by name, keep apart from other networks, and are reached by ports of the
// machine. One, front on port 8083, stays.
func networks(t *testing.T, m *vm.Machine, image string) {
	t.Helper()
	run(t, m, "containerctl network create shop && containerctl network create --internal vault")
	for _, c := range []string{
		"--name front -p 8083:8080", "--name till --network shop --network-alias store -p 127.0.0.1:8082:8080", "--name safe --network vault",
	} {
		run(t, m, "containerctl run -d "+c+" "+image)
	}
	portAnswers(t, m)
	run(t, m, "containerctl network connect vault till")
	for _, c := range []struct{ command, want string }{
		{"wget -qO- http://127.0.0.1:8082/", "hello from a container"},
		{`wget -qO- http://$(ip -4 -o addr show scope global | awk '!/pn-/{sub("/.*","",$4);print $4;exit}'):8083/`, "hello from a container"},
		{"containerctl exec till wget -qO- http://safe:8080/", "hello from a container"},
		{"containerctl exec safe wget -qO- http://till:8080/", "hello from a container"},
		{"containerctl exec till wget -qO- http://store.shop:8080/", "hello from a container"},
		{"containerctl exec front wget -T 2 -qO- http://till:8080/ >/dev/null 2>&1 || echo unknown", "unknown"},
		{"containerctl exec safe wget -T 2 -qO- http://10.0.2.2/ 2>&1 | grep -c unreachable", "1"},
		{"systemctl is-active $(systemctl list-units --plain -q 'proa-dns@*.socket' | awk '{print $1}') | sort -u", "active"},
		{"ps -o user,args | grep '[c]ontainerctl dns' | cut -d' ' -f1 | sort -u", "proa-dns"},
	} {
		if out, err := m.Run(t.Context(), "root", c.command); err != nil || strings.TrimSpace(out) != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.command, out, err, c.want)
		}
	}
	if t.Failed() {
		t.Log(run(t, m, "ls -lR /run/proa/network; cat /run/proa/network/names.json; systemctl status -n 20 --no-pager 'proa-dns@*' proa-till.service; ss -lnu; nft list ruleset"))
	}
	run(t, m, "kill -9 $(containerctl inspect front | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' | head -1)")
	portAnswers(t, m)
	run(t, m, "containerctl rm -f till safe && containerctl network rm shop vault")
	run(t, m, "containerctl stop front")
	if got := run(t, m, "nft list ruleset; ip -o link | grep -E 'pn-|pv'; ls -A /run/proa/network/endpoints; systemctl list-units -q --plain 'proa-dns@*'; cat /proc/sys/net/ipv4/ip_forward"); got != "0" {
		t.Errorf("got %q, want nothing of networks left without a container", got)
	}
	run(t, m, "containerctl start front")
	portAnswers(t, m)
}

// portAnswers asks the container front by its port of the machine.
func portAnswers(t *testing.T, m *vm.Machine) {
	t.Helper()
	if got := run(t, m, "for i in $(seq 60); do wget -qO- http://127.0.0.1:8083/ && break; sleep 1; done"); got != "hello from a container" {
		t.Errorf("got %q by the port of the container front, want its greeting\n%s", got, run(t, m, "nft list ruleset; ip addr; journalctl -b -q -o cat -u proa-front.service -u 'proa-dns@*'"))
	}
}

const (
	helloText = "hello from a container\n" // lab/hello:1
	pagesPort = 8088                       // of the machine
	pagesText = "a page from a container\n"
)

// declarePages declares, as a person would, a web server of Debian's Python on a network of its own, with a port for the world.
func declarePages(t *testing.T, m *vm.Machine, registry string) {
	t.Helper()
	for name, text := range map[string]string{
		"lab.network":     "[Network]\nSubnet=10.89.7.0/24\nIPv6=true\n",
		"pages.image":     "[Image]\nImage=" + registry + "/lab/pages:1\nTLSVerify=false\n",
		"pages.container": fmt.Sprintf("[Container]\nImage=pages.image\nContainerName=pages\nNetwork=lab.network\nPublishPort=%d:8000\n[Install]\nWantedBy=multi-user.target\n", pagesPort),
	} {
		check(t, m.CopyTo(t.Context(), "root", "/etc/containers/systemd/"+name, 0o644, []byte(text)))
	}
	run(t, m, "systemctl daemon-reload && systemctl start pages.service")
	pagesAnswer(t, m)
}

// pagesAnswer asks the declared container from outside of the machine. Its unit is active when its program is, and Python takes its time to
// start on a machine that has just booted beside two others: the wait is for minutes, and what it waited for in vain is told.
func pagesAnswer(t *testing.T, m *vm.Machine) {
	t.Helper()
	if got := run(t, m, "systemctl is-active pages.service"); got != "active" {
		t.Errorf("got pages.service %s, want active", got)
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var last error
	for begin := time.Now(); time.Since(begin) < 3*time.Minute; time.Sleep(time.Second) {
		if last = asksPage(client, "http://"+m.Addr(pagesPort)+"/"); last == nil {
			return
		}
	}
	t.Errorf("got %v from %s, want its page\n%s", last, m.Addr(pagesPort), run(t, m, `exec 2>&1; containerctl ps -a; wget -T 5 -qO- http://127.0.0.1:8088/
nft list ruleset; ip addr; ip route; systemctl status -n 0 --no-pager pages.service lab-network.service; journalctl -b -q --no-pager -u pages.service -u lab-network.service -u 'proa-dns@*'; true`))
}

// asksPage asks the declared container once.
func asksPage(client http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != pagesText {
		return fmt.Errorf("got %s, %q, error %v", resp.Status, body, err)
	}
	return nil
}

// held lists what of containers may stick in the kernel, with the addresses that are given out: mounts, cgroups, links, rules, processes.
const held = `findmnt -rn -o TARGET,SOURCE | sort
find /sys/fs/cgroup -mindepth 1 -type d -name '*proa-*' | grep -v 'proa.*dns' | sort # names are answered for half a minute more
for l in /sys/class/net/*; do echo "$l"; done
nft list ruleset | grep -v counter
find /run/proa/network /run/proa/netns | sort
ps -o args | grep -E '^[^ ]*(containerctl|oci-runtime) ' | grep -v 'containerctl dns'
echo
`

// left has what lies on disks, too.
const left = held + `find /run/proa /var/lib/proa/containers/containers /run/oci-runtime -mindepth 1 2>/dev/null | sort
echo
`

// manyShort runs containers one after the other on a network: nothing is left of them. Each asks another one by its name. They are 10, or
// 100 with PROA_POWERCUT=full: each costs an emulated machine some seconds.
func manyShort(t *testing.T, m *vm.Machine, image string) {
	t.Helper()
	count := 10
	if fullDepth() {
		count = 100
	}
	before := run(t, m, left)
	start := time.Now()
	for done := 0; done < count; done += 10 { // what takes a slow machine long is asked for in pieces
		out := run(t, m, fmt.Sprintf(`for i in $(seq 10); do containerctl run --rm %s wget -qO- http://front:8080/ 2>&1 || exit 1; done`, image))
		if out+"\n" != strings.Repeat(helloText, 10) {
			t.Fatalf("got %q from 10 containers, want %q from each", out, helloText)
		}
	}
	t.Logf("%d containers in %.0f s", count, time.Since(start).Seconds())
	nothingLeft(t, m, left, before)
}

// killed ends everything of the runtime's with SIGKILL, at moments that nobody chose.
func killed(t *testing.T, m *vm.Machine, image string, count int) {
	t.Helper()
	before := run(t, m, held)
	for range count {
		ms := rand.IntN(2000)
		run(t, m, fmt.Sprintf(`containerctl run --rm -p 8099:80 %s sleep 1 >/dev/null 2>&1 & sleep %d.%03d; kill -9 $(pidof containerctl oci-runtime) 2>/dev/null; wait; true`, image, ms/1000, ms%1000))
	}
	// A workload outlives the program that started it, and has its second.
	run(t, m, `for i in $(seq 30); do systemctl list-units -q --plain 'proa-hello-*.service' | grep -q . || break; sleep 1; done`)
	// The next one finds what they left. Records of containers that were to live for one run are gc's.
	run(t, m, fmt.Sprintf("containerctl run --rm -p 8099:80 %s true && containerctl gc", image))
	nothingLeft(t, m, held, before)
	if got := run(t, m, "containerctl ps -aq"); got != "front" {
		t.Errorf("got records of %q after gc, want the one of front", got)
	}
	portAnswers(t, m)
}

func nothingLeft(t *testing.T, m *vm.Machine, list, before string) {
	t.Helper()
	var after string
	for range 10 { // what systemd takes down it takes down a moment later
		if after = run(t, m, list); after == before {
			return
		}
		time.Sleep(time.Second)
	}
	more := map[string]int{}
	for l := range strings.Lines(after) {
		more[l]++
	}
	for l := range strings.Lines(before) {
		more[l]--
	}
	for l, n := range more {
		if n != 0 {
			t.Errorf("%+d %s", n, l)
		}
	}
}
