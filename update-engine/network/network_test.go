package network

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/testenv"
)

func table(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "table")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// The lines are a kernel's.
func TestDefaults(t *testing.T) {
	const head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
	for _, c := range []struct {
		name     string
		lines    []string
		found    bool
		gateways []string
	}{
		{"none", []string{head, "ens3\t0002000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0"}, false, nil},
		{"one", []string{head, "ens3\t00000000\t0202000A\t0003\t0\t0\t100\t00000000\t0\t0\t0"}, true, []string{"10.0.2.2"}},
		{"point to point", []string{"wg0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0"}, true, nil},
		{"unreachable", []string{"*\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0"}, false, nil},
		{"half of everything", []string{"tun0\t00000000\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0"}, false, nil},
		{"garbage", []string{"", "x", "ens3\t00000000\tzz\tzz\t0\t0\t0\t00000000"}, false, nil},
	} {
		if found, gateways := defaults(table(t, c.lines...), parse4); found != c.found || !slices.Equal(gateways, c.gateways) {
			t.Errorf("%s: got %v, %q, want %v, %q", c.name, found, gateways, c.found, c.gateways)
		}
	}
	zero := strings.Repeat("0", 32)
	for _, c := range []struct {
		name     string
		line     string
		found    bool
		gateways []string
	}{
		{"by advertisement", zero + " 00 " + zero + " 00 fe800000000000000000000000000002 00000064 00000001 00000000 00450003     ens3", true, []string{"fe80::2%ens3"}},
		{"static", zero + " 00 " + zero + " 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003     ens3", true, []string{"2001:db8::1"}},
		{"the kernel's last", zero + " 00 " + zero + " 00 " + zero + " ffffffff 00000001 00000000 00200200       lo", false, nil},
		{"a link", "fe800000000000000000000000000000 40 " + zero + " 00 " + zero + " 00000100 00000001 00000000 00000001     ens3", false, nil},
	} {
		if found, gateways := defaults(table(t, c.line), parse6); found != c.found || !slices.Equal(gateways, c.gateways) {
			t.Errorf("%s: got %v, %q, want %v, %q", c.name, found, gateways, c.found, c.gateways)
		}
	}
	if found, _ := defaults(filepath.Join(t.TempDir(), "none"), parse6); found {
		t.Error("a kernel without IPv6 has a default route")
	}
}

func TestNameServersAndHosts(t *testing.T) {
	name := table(t, "# made by resolved", "nameserver 10.0.2.3", "nameserver fe80::3%2", "search example.org", "nameserver")
	if got := nameServers(name); !slices.Equal(got, []string{"10.0.2.3", "fe80::3%2"}) {
		t.Errorf("name servers %q", got)
	}
	got := hosts([]string{"https://updates.example.org/", "http://10.0.2.2:8080/x", "http://[::1]/", "file:///mnt/usb", "", "://",
		"oci://registry.example.org/os/updates:latest", "oci+http://10.0.2.2:5000/updates:latest"})
	if want := []string{"updates.example.org:443", "10.0.2.2:8080", "[::1]:80", "registry.example.org:443", "10.0.2.2:5000"}; !slices.Equal(got, want) {
		t.Errorf("hosts %q, want %q", got, want)
	}
}

func TestConnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := connect(t.Context(), l.Addr().String()); err != nil {
		t.Error(err)
	}
	l.Close()
	if err := connect(t.Context(), l.Addr().String()); err == nil {
		t.Error("nobody listens, and it is there")
	}
}

// A name server that answers, one that says something else, and none.
func TestQuery(t *testing.T) {
	for what, answer := range map[string]func([]byte) []byte{
		"": func(q []byte) []byte { q[2] |= 0x80; return q }, "does not speak DNS": func([]byte) []byte { return []byte("hello, hello") },
	} {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			b := make([]byte, 1500)
			if n, from, err := c.ReadFrom(b); err == nil {
				_, _ = c.WriteTo(answer(b[:n]), from)
			}
		}()
		err = queryPort(t.Context(), c.LocalAddr().String())
		if what == "" && err != nil || what != "" && (err == nil || !strings.Contains(err.Error(), what)) {
			t.Errorf("got %v, want %q", err, what)
		}
		c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := queryPort(ctx, c.LocalAddr().String()); err == nil {
			t.Error("nobody is there, and it answers")
		}
		cancel()
	}
}

// TestPing pings in a network namespace of its own, in which whoever is there may: hosts differ in that (net.ipv4.ping_group_range).
func TestPing(t *testing.T) {
	const inside = "PROA_PING_NAMESPACE"
	if os.Getenv(inside) != "" {
		pingInside(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPing$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		testenv.Missing(t, "in a network namespace: %v", err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "--- PASS: TestPing") {
		t.Errorf("inside: %v\n%s", err, &out)
	}
}

func pingInside(t *testing.T) {
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := ping(t.Context(), "127.0.0.1"); err == nil {
		t.Error("it answers although no interface is up")
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		if err := ping(t.Context(), host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := ping(ctx, "192.0.2.1"); err == nil {
		t.Error("an address of documentation answers")
	}
	if err := ping(t.Context(), "not an address"); err == nil {
		t.Error("no error")
	}
}

func TestAnyone(t *testing.T) {
	n := 0
	if anyone(t.Context(), nil, connect) {
		t.Error("nobody was asked, and somebody answered")
	}
	second := func(context.Context, string) error {
		if n++; n < 2 {
			return errors.New("lost")
		}
		return nil
	}
	if !anyone(t.Context(), []string{"a"}, second) {
		t.Error("was not asked again")
	}
	if anyone(t.Context(), []string{"a", "b"}, func(context.Context, string) error { return errors.New("silent") }) {
		t.Error("the silent answered")
	}
}

func TestLook(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if n, err := Look(t.Context(), "http://"+l.Addr().String()+"/"); err != nil || !n.Server {
		t.Errorf("got %+v, %v", n, err)
	}
}
