package vm

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A Network is an Ethernet segment between machines: a hub in the harness, which needs no root and no host network. What one
// machine sends all others get; no host is on it, so addresses are the machines' own affair.
type Network struct {
	mu    sync.Mutex
	ports map[string]*port // by MAC address
}

// A NIC is a network card of a machine, besides the first one, which reaches the host.
type NIC struct {
	Network *Network
	MAC     string // its address, to match it by in the guest: 52:54:00:00:00:01

	fd int // inherited socket
}

// maxFrame is the longest frame that a virtio card sends with an MTU of 65535 or less.
const maxFrame = 64<<10 + 18

// waiting frames for a machine that does not take them; more are lost, as on any wire.
const maxWaiting = 1024

// A port is where one running machine is plugged in.
type port struct {
	conn net.Conn
	out  chan []byte
}

// NewNetwork returns a network without machines; Config.NICs puts them on it.
func NewNetwork() *Network { return &Network{ports: map[string]*port{}} }

// plug gives the end of a socket for QEMU, each datagram of which is a frame. Call unplug when QEMU has ended.
func (n *Network) plug(mac string) (theirs *os.File, unplug func(), err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("plug in %s: %w", mac, err)
	}
	ours := os.NewFile(uintptr(fds[0]), "hub end")
	theirs = os.NewFile(uintptr(fds[1]), "QEMU end")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("plug in %s: %w", mac, err)
	}
	p := &port{conn: conn, out: make(chan []byte, maxWaiting)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[mac] != nil {
		conn.Close()
		theirs.Close()
		return nil, nil, fmt.Errorf("plug in %s: a running machine on this network has the same MAC address", mac)
	}
	n.ports[mac] = p
	stop := make(chan struct{})
	go n.receive(p)
	go p.send(stop)
	return theirs, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.ports, mac)
		close(stop)
		conn.Close()
	}, nil
}

// receive takes frames until the port is closed.
func (n *Network) receive(p *port) {
	buf := make([]byte, maxFrame)
	for {
		size, err := p.conn.Read(buf)
		if err != nil {
			return
		}
		frame := append([]byte(nil), buf[:size]...)
		n.mu.Lock()
		for _, other := range n.ports {
			if other == p {
				continue
			}
			select {
			case other.out <- frame:
			default: // It does not listen: the frame is lost.
			}
		}
		n.mu.Unlock()
	}
}

func (p *port) send(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case frame := <-p.out:
			p.conn.Write(frame) // To a QEMU that has just ended: lost.
		}
	}
}

// checkNICs refuses cards that could not be told apart.
func checkNICs(nics []NIC) error {
	for i, nic := range nics {
		hw, err := net.ParseMAC(nic.MAC)
		if err != nil || len(hw) != 6 || hw[0]&1 != 0 {
			return fmt.Errorf("network card %d: MAC address %q: expected one of a single card such as 52:54:00:00:00:01", i, nic.MAC)
		}
		if nic.Network == nil {
			return fmt.Errorf("network card %s: no network", nic.MAC)
		}
		for _, other := range nics[:i] {
			if other.MAC == nic.MAC || other.Network == nic.Network {
				return fmt.Errorf("network cards %s and %s: the same address or network", other.MAC, nic.MAC)
			}
		}
	}
	return nil
}

// plugIn gives every card its descriptor, from first on, and returns the files to inherit.
func (h *hardware) plugIn(first int) (files []*os.File, unplug func(), err error) {
	var undo []func()
	unplug = func() {
		for _, u := range undo {
			u()
		}
	}
	h.nics = slices.Clone(h.nics)
	for i := range h.nics {
		f, u, err := h.nics[i].Network.plug(h.nics[i].MAC)
		if err != nil {
			unplug()
			for _, f := range files {
				f.Close()
			}
			return nil, nil, err
		}
		h.nics[i].fd = first + i
		files, undo = append(files, f), append(undo, u)
	}
	return files, unplug, nil
}

// netArgs are the machine's network cards.
func (h hardware) netArgs() []string {
	user := "user,id=net"
	for _, f := range h.forwards {
		user += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
	}
	a := []string{"-netdev", user, "-device", "virtio-net-pci,netdev=net,romfile="}
	for i, nic := range h.nics {
		a = append(a, "-netdev", fmt.Sprintf("dgram,id=lan%d,local.type=fd,local.str=%d", i, nic.fd),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=lan%d,mac=%s,romfile=", i, nic.MAC))
	}
	return a
}

// SetLink pulls the cable of the machine's card on n, or plugs it in again; nil is the card that reaches the host. It
// stays so over reboots.
func (m *Machine) SetLink(ctx context.Context, n *Network, up bool) error {
	name := "net"
	if n != nil {
		name = ""
		for i, nic := range m.hw.nics {
			if nic.Network == n {
				name = fmt.Sprintf("lan%d", i)
			}
		}
		if name == "" {
			return fmt.Errorf("set link of %s: it has no card on this network", m.cfg.Name)
		}
	}
	m.mu.Lock()
	if up {
		delete(m.unplugged, name)
	} else {
		m.unplugged[name] = true
	}
	p := m.proc
	m.mu.Unlock()
	m.console.Note(fmt.Sprintf("link of %s up: %v", name, up))
	if p == nil {
		return nil
	}
	return setLink(ctx, p, name, up)
}

func setLink(ctx context.Context, p *process, name string, up bool) error {
	return p.qmp.Execute(ctx, "set_link", map[string]any{"name": name, "up": up}, nil)
}
