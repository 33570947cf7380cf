package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NewNamespace makes a network namespace with its loopback up. It lives as long as the file is open or a process is in it.
func NewNamespace() (*os.File, error) {
	var f *os.File
	err := apart(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace (needs root): %w", err)
		}
		var err error
		if f, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		// As docker's: workloads that are not root may ping, and listen below 1024. IPv6 addresses are ours to give, and good at once.
		for name, value := range map[string]string{
			"net/ipv4/ip_unprivileged_port_start": "0", "net/ipv4/ping_group_range": "0 2147483647",
			"net/ipv6/conf/default/accept_dad": "0", "net/ipv6/conf/default/accept_ra": "0",
		} {
			if err := set(name, value); err != nil {
				return err
			}
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, fmt.Errorf("prepare network namespace: %w", err)
	}
	return f, nil
}

// Enter puts this thread into a namespace. The caller has locked it.
func Enter(f *os.File) error {
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", f.Name(), err)
	}
	return nil
}

// apart runs f on a thread that ends with it, so that what f does to its thread happens to nobody else.
func apart(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- f()
	}()
	return <-done
}

// HasIPv6 reports whether the kernel speaks IPv6: ipv6.disable=1 switches it off.
func HasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// set writes a setting of this thread's namespace if it is not so already. One that is not there (IPv6 is off) needs nothing.
func set(name, value string) error {
	p := filepath.Join("/proc/sys", name)
	b, err := os.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && strings.Join(strings.Fields(string(b)), " ") != value {
		err = os.WriteFile(p, []byte(value), 0)
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// Forwarding says what the kernel forwards.
type Forwarding struct{ IPv4, IPv6 bool }

const (
	forward4 = "net/ipv4/ip_forward"
	forward6 = "net/ipv6/conf/all/forwarding"
)

// ReadForwarding reads what is set. A kernel without IPv6 counts as forwarding it: there is nothing to switch on.
func ReadForwarding() (Forwarding, error) {
	var out Forwarding
	for name, p := range map[string]*bool{forward4: &out.IPv4, forward6: &out.IPv6} {
		b, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if errors.Is(err, fs.ErrNotExist) {
			*p = true
			continue
		}
		if err != nil {
			return out, err
		}
		*p = strings.TrimSpace(string(b)) != "0"
	}
	return out, nil
}

// SetForwarding switches forwarding on or off for the families that are true in which.
//
// It is one switch for all interfaces: what comes back from outside arrives on the uplink, so that one has to forward as well. With
// forwarding the kernel would stop listening to routers' advertisements and drop the routes learnt from them, so interfaces that
// listen are told to go on first (accept_ra=2).
func SetForwarding(which Forwarding, on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	if which.IPv6 && on {
		conf := "/proc/sys/net/ipv6/conf"
		names, err := os.ReadDir(conf)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, n := range names {
			p := filepath.Join(conf, n.Name(), "accept_ra")
			if b, err := os.ReadFile(p); err == nil && strings.TrimSpace(string(b)) == "1" {
				// An interface that goes away meanwhile needs nothing.
				if err := os.WriteFile(p, []byte("2"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("keep router advertisements: %w", err)
				}
			}
		}
	}
	if which.IPv4 {
		if err := set(forward4, value); err != nil {
			return err
		}
	}
	if which.IPv6 {
		return set(forward6, value)
	}
	return nil
}
