package run

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// moveDevices moves linux.netDevices from the network namespace that host belongs to into that of the process behind pidfd, with
// their addresses, and sets them up. Nobody moves them back: with the namespace the kernel does, or removes them.
func (k *creation) moveDevices(host *netlink, pidfd int) error {
	if len(k.spec.Linux.NetDevices) == 0 {
		return nil
	}
	there, ns, err := netlinkOf(pidfd)
	if err != nil {
		return fmt.Errorf("linux.netDevices: %w", err)
	}
	defer there.close()
	defer unix.Close(ns)
	for _, name := range slices.Sorted(maps.Keys(k.spec.Linux.NetDevices)) {
		to := k.spec.Linux.NetDevices[name].Name
		if to == "" {
			to = name
		}
		if err := moveDevice(host, there, ns, name, to); err != nil {
			return fmt.Errorf("linux.netDevices.%s: %w", name, err)
		}
	}
	return nil
}

// netlinkOf opens a socket in the network namespace of a process, and the namespace.
func netlinkOf(pidfd int) (*netlink, int, error) {
	pid, err := pidOf(pidfd)
	if err != nil {
		return nil, -1, err
	}
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("open network namespace: %w", err)
	}
	type result struct {
		n   *netlink
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- result{nil, fmt.Errorf("enter network namespace: %w", err)}
			return
		}
		n, err := openNetlink()
		done <- result{n, err}
	}()
	r := <-done
	if r.err != nil {
		unix.Close(ns)
		return nil, -1, r.err
	}
	return r.n, ns, nil
}

func moveDevice(host, there *netlink, ns int, name, to string) error {
	index, err := host.index(name)
	if err != nil {
		return fmt.Errorf("find it on the host: %w", err)
	}
	addresses, err := host.addresses(index)
	if err != nil {
		return fmt.Errorf("list its addresses: %w", err)
	}
	if to, err = there.free(to); err != nil {
		return err
	}
	fd := binary.NativeEndian.AppendUint32(nil, uint32(ns))
	// Over the socket of the host, where the device still is.
	if _, err := host.ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, ifInfo(index, 0, 0), attribute(unix.IFLA_NET_NS_FD, fd), attribute(unix.IFLA_IFNAME, append([]byte(to), 0))); err != nil {
		return fmt.Errorf("move it as %s: %w", to, err)
	}
	if index, err = there.index(to); err != nil {
		return fmt.Errorf("find it as %s in the container: %w", to, err)
	}
	for _, a := range addresses {
		binary.NativeEndian.PutUint32(a.head[4:], uint32(index))
		if _, err := there.ask(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a.head, a.attributes); err != nil {
			return fmt.Errorf("give it its address back: %w", err)
		}
	}
	if _, err := there.ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, ifInfo(index, unix.IFF_UP, unix.IFF_UP)); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}

// ifInfo is struct ifinfomsg.
func ifInfo(index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// index finds a device by its name.
func (n *netlink) index(name string) (int, error) {
	got, err := n.ask(unix.RTM_GETLINK, 0, ifInfo(0, 0, 0), attribute(unix.IFLA_IFNAME, append([]byte(name), 0)))
	if err != nil {
		return 0, err
	}
	if len(got) != 1 || len(got[0]) < unix.SizeofIfInfomsg {
		return 0, unix.EBADMSG
	}
	return int(binary.NativeEndian.Uint32(got[0][4:])), nil
}

// free returns a name that no device has: name itself, or what its %d stands for.
func (n *netlink) free(name string) (string, error) {
	before, after, template := strings.Cut(name, "%d")
	for i := 0; ; i++ {
		try := name
		if template {
			try = before + strconv.Itoa(i) + after
		}
		_, err := n.index(try)
		switch {
		case errors.Is(err, unix.ENODEV):
			return try, nil
		case err != nil:
			return "", fmt.Errorf("look for %s in the container: %w", try, err)
		case !template:
			return "", fmt.Errorf("the container's network namespace has a device %s already: choose another name", try)
		}
	}
}

// An address is a message of RTM_NEWADDR in two parts: struct ifaddrmsg, and what belongs to it.
type address struct{ head, attributes []byte }

// addresses returns the permanent ones of global scope of a device (config-linux.md, "Network devices").
func (n *netlink) addresses(index int) ([]address, error) {
	got, err := n.ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, err
	}
	var out []address
	for _, m := range got {
		if len(m) < unix.SizeofIfAddrmsg || int(binary.NativeEndian.Uint32(m[4:])) != index || m[3] != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		attrs := attributes(m[unix.SizeofIfAddrmsg:])
		flags := uint32(m[2])
		if f := attrs[unix.IFA_FLAGS]; len(f) == 4 {
			flags = binary.NativeEndian.Uint32(f)
		}
		if flags&unix.IFA_F_PERMANENT == 0 {
			continue
		}
		a := address{head: m[:unix.SizeofIfAddrmsg:unix.SizeofIfAddrmsg]}
		for _, kind := range []uint16{unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_BROADCAST, unix.IFA_FLAGS} {
			if v, ok := attrs[kind]; ok {
				a.attributes = append(a.attributes, attribute(kind, v)...)
			}
		}
		out = append(out, a)
	}
	return out, nil
}
