package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/testenv"
)

// networkProbe is the workload in networks: "listen" answers HTTP with its host name, "ask" prints the answer of an URL, "resolve" a
// name's addresses, "cat" a file.
func networkProbe(args []string) int {
	var err error
	switch args[0] {
	case "listen":
		host, _ := os.Hostname()
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, host) })
		err = http.ListenAndServe(":"+args[1], nil)
	case "ask":
		var b []byte
		if b, err = ask(args[1]); err == nil {
			fmt.Println(string(b))
		}
	case "resolve":
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		var all []string
		if all, err = net.DefaultResolver.LookupHost(ctx, args[1]); err == nil {
			fmt.Println(strings.Join(all, " "))
		}
	case "cat":
		var b []byte
		b, err = os.ReadFile(args[1])
		os.Stdout.Write(b)
	default:
		err = errors.New("no such probe")
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func ask(url string) ([]byte, error) {
	c := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}
	r, err := c.Get(url)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	return io.ReadAll(r.Body)
}

// startResolver does what a responder's socket unit and its service do: sockets bound to the bridge, and the responder with them.
func (u *units) startResolver(bridge string, addresses []netip.Addr) error {
	bind := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, bridge) })
		return errors.Join(cerr, err)
	}}
	var files []*os.File
	for _, a := range addresses {
		at := netip.AddrPortFrom(a, 53).String()
		p, err := bind.ListenPacket(context.Background(), "udp", at)
		if err != nil {
			return err
		}
		l, err := bind.Listen(context.Background(), "tcp", at)
		if err != nil {
			return err
		}
		pf, err1 := p.(*net.UDPConn).File()
		lf, err2 := l.(*net.TCPListener).File()
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		files = append(files, pf, lf)
	}
	// The shell knows the pid that LISTEN_PID= is to be.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec /proc/$PPID/exe dns`)
	cmd.Env = append(os.Environ(), "CTL_DIR="+u.dir, fmt.Sprint("LISTEN_FDS=", len(files)))
	cmd.ExtraFiles = files
	if err := cmd.Start(); err != nil {
		return err
	}
	// The shell must have found its parent's program before the parent ends.
	for range 1000 {
		if target, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid)); err != nil || strings.HasSuffix(target, ".test") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return os.WriteFile(filepath.Join(u.dir, "resolver-"+bridge), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600)
}

func (u *units) stopResolver(name string) error {
	bridge, ok := strings.CutSuffix(strings.TrimPrefix(name, "proa-dns@"), ".socket")
	if !ok {
		return nil // the service went with its socket
	}
	file := filepath.Join(u.dir, "resolver-"+bridge)
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		return err
	}
	return errors.Join(unix.Kill(pid, unix.SIGTERM), os.Remove(file))
}

// networkMachine is a machine in a network namespace of its own. The whole process must be in it, so the test is run once more, by a
// process that is; then the machine is nil here.
func networkMachine(t *testing.T) *machine {
	t.Helper()
	needContainers(t)
	if os.Getenv("CTL_NETWORK") == "" {
		c := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), "CTL_NETWORK=1")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		out, err := c.CombinedOutput()
		switch {
		case err != nil:
			t.Errorf("%v: %s", err, out)
		case !strings.Contains(string(out), "--- PASS: "+t.Name()):
			testenv.Missing(t, "in a network of its own: %s", out)
		}
		return nil
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		testenv.Missing(t, "in a network of its own: ip link set lo up: %v %s", err, out)
	}
	m := newMachine(t)
	m.must("pull", "--tls-verify=false", m.image())
	return m
}

// TestNetwork has one machine for all: its image is as large as the test.
func TestNetwork(t *testing.T) {
	m := networkMachine(t)
	if m == nil {
		return
	}
	for _, f := range []func(*testing.T, *machine){testNetwork, testNetworkJoin, testNetworkShort} {
		f(t, m)
	}
}

// links are the machine's interfaces but lo.
func links(t *testing.T) int {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	return len(all) - 1
}

// unwired checks that nothing of networks is left.
func (m *machine) unwired() {
	m.t.Helper()
	for range 100 {
		if links(m.t) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := links(m.t); n != 0 {
		m.t.Errorf("%d interfaces stay", n)
	}
	if out, err := testenv.Judges(m.t).Command(context.Background(), "nft", "list", "ruleset").Output(); err != nil || len(out) > 0 {
		m.t.Errorf("rules stay: %v\n%s", err, out)
	}
	for _, d := range []string{"endpoints", "resolvers"} {
		if es, _ := os.ReadDir(filepath.Join(m.dir, "run-network", d)); len(es) != 0 {
			m.t.Errorf("%s: %v", d, es)
		}
	}
	if es, _ := filepath.Glob(filepath.Join(m.dir, "resolver-*")); len(es) != 0 {
		m.t.Errorf("responders run: %v", es)
	}
}

// testNetwork is two containers that find each other, a port, and changes while they run.
func testNetwork(t *testing.T, m *machine) {
	// Whoever asks for foreign names would ask the test machine's resolver; nobody does.
	m.must("run", "-d", "--name", "web", "-p", "8080:80", "--network-alias", "www", m.image(), "listen", "80")
	m.must("run", "-d", "--name", "db", "--hostname", "database", "--add-host", "gate:host-gateway", m.image(), "listen", "81")
	eventually(t, func() error {
		b, err := ask("http://127.0.0.1:8080/")
		if err == nil && string(b) != "web" {
			err = fmt.Errorf("%q", b)
		}
		return err
	})
	for _, c := range [][]string{
		{"db", "ask", "http://web/", "web"}, {"db", "ask", "http://www.bridge/", "web"}, {"web", "ask", "http://db:81/", "database"}, {"web", "ask", "http://web:80/", "web"},
	} {
		if out := strings.TrimSpace(m.must("exec", c[0], "/probe", c[1], c[2])); out != c[3] {
			t.Errorf("%v: %q", c, out)
		}
	}
	hosts := m.must("exec", "db", "/probe", "cat", "/etc/hosts")
	resolv := m.must("exec", "db", "/probe", "cat", "/etc/resolv.conf")
	if !strings.Contains(hosts, "\tdatabase db\n") || !strings.Contains(hosts, "10.88.0.1\tgate\n") || !strings.HasPrefix(resolv, "nameserver 10.88.0.1\n") || !strings.Contains(resolv, "options ndots:0\n") {
		t.Errorf("hosts:\n%sresolv.conf:\n%s", hosts, resolv)
	}
	if out := m.must("ps"); !strings.Contains(out, "*:8080->80/tcp") {
		t.Errorf("ps:\n%s", out)
	}
	if out := m.must("port", "web"); out != "80/tcp -> *:8080\n" {
		t.Errorf("port: %q", out)
	}
	m.mustFail("port *:8080/tcp: the container web has it", "run", "-d", "--name", "late", "-p", "8080:80", m.image(), "listen", "80")
	_, mine, _ := strings.Cut(m.reg.Addr, ":")
	m.mustFail("(pid "+strconv.Itoa(os.Getpid())+") has it", "run", "-d", "--name", "late", "-p", mine+":80", m.image(), "listen", "80")

	// Changes are live.
	pid := m.pid("web")
	m.must("port", "web", "--add", "9090:80", "--remove", "8080:80")
	if b, err := ask("http://127.0.0.1:9090/"); err != nil || string(b) != "web" {
		t.Errorf("the new port: %q %v", b, err)
	}
	if _, err := ask("http://127.0.0.1:8080/"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the old port: %v", err)
	}
	m.must("network", "create", "--subnet", "10.20.0.0/24", "--gateway", "10.20.0.254", "--ip-range", "10.20.0.128/25", "--internal", "back")
	m.mustFail("a network with this name exists", "network", "create", "back")
	m.must("network", "create", "--ignore", "back")
	m.must("network", "connect", "--alias", "store", "--ip", "10.20.0.7", "back", "db")
	m.mustFail("db is in the network back already", "network", "connect", "back", "db")
	m.must("network", "connect", "back", "web")
	if out := m.must("exec", "web", "/probe", "resolve", "store"); out != "10.20.0.7\n" {
		t.Errorf("store is %q", out)
	}
	m.mustFail("the container db is in it", "network", "rm", "back")
	m.must("network", "disconnect", "bridge", "web")
	if out, _, code := m.ctl("exec", "web", "/probe", "ask", "http://store:81/"); code != 0 || out != "database\n" {
		t.Errorf("over the network that is left: %q", out)
	}
	m.mustFail("needs a network with a way out", "port", "web", "--add", "7070:80")
	if m.pid("web") != pid {
		t.Error("web was started again")
	}
	m.must("network", "connect", "bridge", "web")

	// A restart keeps addresses and all else.
	before := m.must("network", "inspect", "bridge", "back")
	m.must("restart", "web", "db")
	if after := m.must("network", "inspect", "bridge", "back"); after != before || !strings.Contains(after, `"10.20.0.7"`) {
		t.Errorf("before: %s\nafter: %s", before, after)
	}
	eventually(t, func() error { _, err := ask("http://127.0.0.1:9090/"); return err })
	m.must("stop", "web")
	m.must("network", "release", "web") // its unit does it
	if _, err := ask("http://127.0.0.1:9090/"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the port of a stopped container: %v", err)
	}
	m.must("rm", "-f", "web", "db")
	m.must("network", "prune")
	if out := m.must("network", "ls"); strings.Count(out, "\n") != 2 || !strings.Contains(out, "bridge") {
		t.Errorf("networks:\n%s", out)
	}
	m.unwired()
}

func (m *machine) pid(name string) int {
	m.t.Helper()
	var vs []struct{ Pid int }
	if err := json.Unmarshal([]byte(m.must("inspect", name)), &vs); err != nil || len(vs) != 1 {
		m.t.Fatal(err)
	}
	return vs[0].Pid
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for range 500 {
		if err = f(); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error(err)
}

// testNetworkJoin is namespaces that are shared: a container's, and one of nobody's (a pod's).
func testNetworkJoin(t *testing.T, m *machine) {
	m.must("run", "-d", "--name", "web", m.image(), "listen", "80")
	m.must("run", "-d", "--name", "side", "--network", "container:web", m.image(), "listen", "81")
	eventually(t, func() error {
		if out, _, code := m.ctl("exec", "side", "/probe", "ask", "http://127.0.0.1:80/"); code != 0 || out != "web\n" {
			return errors.New(out)
		}
		return nil
	})
	if a, b := m.must("exec", "web", "/probe", "cat", "/etc/resolv.conf"), m.must("exec", "side", "/probe", "cat", "/etc/resolv.conf"); a != b || a == "" {
		t.Errorf("resolv.conf %q and %q", a, b)
	}
	m.mustFail("the container nobody, whose network it shares, does not run", "run", "-d", "--name", "lost", "--network", "container:nobody", m.image(), "listen", "81")

	ns := strings.TrimSpace(m.must("network", "namespace", "up", "-p", "7070:82", "pod"))
	if again := strings.TrimSpace(m.must("network", "namespace", "up", "-p", "7070:82", "-p", "7071:82", "pod")); again != ns {
		t.Errorf("%s and then %s", ns, again)
	}
	m.must("run", "-d", "--name", "inner", "--network", "ns:"+ns, m.image(), "listen", "82")
	for _, port := range []string{"7070", "7071"} {
		eventually(t, func() error { _, err := ask("http://127.0.0.1:" + port); return err })
	}
	if out := m.must("exec", "web", "/probe", "ask", "http://pod:82/"); out != "inner\n" {
		t.Errorf("the pod by its name: %q", out)
	}
	if out := m.must("exec", "inner", "/probe", "ask", "http://web/"); out != "web\n" {
		t.Errorf("out of the pod: %q", out)
	}
	m.must("rm", "-f", "side", "web", "inner")
	m.must("network", "namespace", "down", "pod")
	if _, err := os.Stat(ns); err == nil {
		t.Errorf("%s stays", ns)
	}
	m.unwired()
}

// testNetworkShort: containers that end leave nothing, also those whose starter is killed.
func testNetworkShort(t *testing.T, m *machine) {
	for range 3 {
		if out := m.must("run", m.image(), "resolve", "localhost"); !strings.Contains(out, "127.0.0.1") {
			t.Errorf("says %q", out)
		}
		m.unwired()
	}
	// The parent is killed, and with it nobody removes the container: its end does for the kernel, the next command for the rest.
	c := exec.Command("/proc/self/exe", "run", "--name", "short", "-p", "8080:80", m.image(), "listen", "80")
	c.Env = append(os.Environ(), "CTL_DIR="+m.dir)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { _, err := ask("http://127.0.0.1:8080/"); return err })
	c.Process.Kill()
	c.Wait()
	m.must("rm", "-f", "short")
	m.unwired()
	if _, err := os.Stat(filepath.Join(m.dir, "store/containers/short")); err == nil {
		t.Error("the container stays")
	}
}
