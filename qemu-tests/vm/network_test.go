package vm

import (
	"net"
	"strings"
	"testing"
	"time"
)

// ends plugs cards into a network and returns QEMU's ends.
func ends(t *testing.T, n *Network, macs ...string) []net.Conn {
	t.Helper()
	var conns []net.Conn
	for _, mac := range macs {
		f, unplug, err := n.plug(mac)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(unplug)
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn)
	}
	return conns
}

func heard(t *testing.T, c net.Conn) string {
	t.Helper()
	b := make([]byte, maxFrame)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestNetworkIsAHub(t *testing.T) {
	n := NewNetwork()
	c := ends(t, n, "a", "b", "c")
	long := strings.Repeat("x", 9000)
	for _, frame := range []string{"one", long, "two"} {
		if _, err := c[0].Write([]byte(frame)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"one", long, "two"} {
		for _, to := range c[1:] {
			if got := heard(t, to); got != want {
				t.Errorf("got %.10q, want %.10q", got, want)
			}
		}
	}
	if _, err := c[1].Write([]byte("back")); err != nil {
		t.Fatal(err)
	}
	if got := heard(t, c[0]); got != "back" { // and not its own words
		t.Errorf("got %q, want %q", got, "back")
	}
	if _, _, err := n.plug("a"); err == nil || !strings.Contains(err.Error(), "same MAC") {
		t.Errorf("got %v from the same address twice", err)
	}
}

// A machine that does not take its frames keeps nobody waiting.
func TestNetworkLosesFrames(t *testing.T) {
	c := ends(t, NewNetwork(), "a", "deaf", "c")
	got := make(chan string)
	go func() {
		for {
			b := make([]byte, 100)
			size, err := c[2].Read(b)
			if err != nil {
				return
			}
			if string(b[:size]) == "last" {
				got <- "last"
				return
			}
		}
	}()
	for range 3 * maxWaiting {
		if _, err := c[0].Write([]byte("word")); err != nil {
			t.Fatal(err)
		}
	}
	for {
		c[0].Write([]byte("last"))
		select {
		case <-got:
			return
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the hub waits for the deaf one")
		}
	}
}

func TestNICErrors(t *testing.T) {
	a, b := NewNetwork(), NewNetwork()
	for want, nics := range map[string][]NIC{
		"MAC address \"x\"":           {{Network: a, MAC: "x"}},
		"MAC address \"ff:":           {{Network: a, MAC: "ff:ff:ff:ff:ff:ff"}},
		"no network":                  {{MAC: "52:54:00:00:00:01"}},
		"the same address or network": {{Network: a, MAC: "52:54:00:00:00:01"}, {Network: b, MAC: "52:54:00:00:00:01"}},
	} {
		if err := checkNICs(nics); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := checkNICs([]NIC{{Network: a, MAC: "52:54:00:00:00:01"}, {Network: b, MAC: "52:54:00:00:00:02"}}); err != nil {
		t.Error(err)
	}
}

// TestNetwork lets two machines hear each other, until a cable is pulled, and again.
func TestNetwork(t *testing.T) {
	lan := NewNetwork()
	card := func(mac string) func(*Config) {
		return func(c *Config) { c.NICs = []NIC{{Network: lan, MAC: mac}} }
	}
	a := newTalker(t, "a", card("52:54:00:00:00:0a"))
	b := newTalker(t, "b", card("52:54:00:00:00:0b"))
	b.do("listen eth1", "listening")
	a.do("shout eth1 one", "shouted one")
	b.wait(`guest: heard "one"`)
	b.check(b.SetLink(t.Context(), lan, false))
	a.do("shout eth1 lost", "shouted lost")
	time.Sleep(time.Second) // the frame is with b's QEMU, which has to look at it before the cable is back
	b.check(b.SetLink(t.Context(), lan, true))
	a.do("shout eth1 two", "shouted two")
	b.wait(`guest: heard "two"`)

	// A pulled cable stays pulled over a reboot of the machine.
	a.check(a.SetLink(t.Context(), lan, false))
	a.check(a.PowerCycle(t.Context()))
	a.wait("guest: ready")
	a.do("carrier eth1", "carrier of eth1: 0")
	a.check(a.SetLink(t.Context(), lan, true))
	a.do("shout eth1 three", "shouted three")
	b.wait(`guest: heard "three"`)
	for _, l := range b.Console().Lines(0) {
		if strings.Contains(l.Text, "lost") {
			t.Errorf("got %q through a pulled cable", l.Text)
		}
	}
	if err := a.SetLink(t.Context(), NewNetwork(), false); err == nil {
		t.Error("pulled a cable of another network")
	}
}
