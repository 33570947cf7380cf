// Package wiring attaches containers to networks: it puts package network's decisions and the edges link and firewall in order.
//
// Nothing stays resident. What is durable is the networks' definitions; who has which address is in the containers' own files. What this
// boot has done is in /run, and a record is written there before the deed:
//
//	/var/lib/proa/networks/<name>.json      a network.Network
//	/run/proa/network/lock                  flock: whoever changes anything below, or the kernel
//	/run/proa/network/endpoints/<owner>     a network.Endpoint
//	/run/proa/network/names.json            network.Names, for the responders; everybody may read it
//	/run/proa/network/resolvers/<bridge>    the responder's socket unit was started for it
//	/run/proa/network/forwarding            what of the kernel's forwarding was switched on for our sake
//	/run/proa/netns/<name>                  namespaces without a container (pods), mounted
//
// Every change ends in settle, which compares the records with the kernel and removes or makes the difference: links, ports, names,
// responders, bridges, forwarding. So a kill at any moment leaves what the next change repairs: a container whose namespace is gone has
// no link any more (the kernel has removed it), and its record, ports and names go. When the last container has left, there is nothing.
package wiring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/runtime/link"
	"github.com/proa-os/proa/runtime/network"
)

// Sockets makes and stops the responders' socket units. Listen makes one for port 53, TCP and UDP, of addresses of one link,
// which hears nothing from elsewhere.
type Sockets interface {
	Listen(ctx context.Context, unit, link string, addresses []netip.Addr) error
	Stop(ctx context.Context, unit string) error
}

// patience is how long a responder's unit may take. The lock is held meanwhile, which all containers' starts wait for.
const patience = 10 * time.Second

// Places on a machine.
const (
	DefaultNetworks   = "/var/lib/proa/networks"
	DefaultRun        = "/run/proa/network"
	DefaultNamespaces = "/run/proa/netns"
)

// NamesFile is where in Run the names are.
const NamesFile = "names.json"

// Wiring is the machine's networks.
type Wiring struct {
	Networks   string // directory of definitions
	Run        string // directory of this boot's records
	Namespaces string // directory of namespaces without a container
	Sockets    Sockets
	Warn       func(error) // told what goes wrong without stopping a container from working
}

// SocketUnit is where a bridge's responder is asked.
func SocketUnit(bridge string) string { return "proa-dns@" + bridge + ".socket" }

// held is the wiring with its lock taken and its records read.
type held struct {
	*Wiring
	lock      *os.File
	machine   *link.Machine
	networks  map[string]*network.Network
	endpoints map[string]*network.Endpoint
}

// hold takes the lock and reads the records. Call release.
func (w *Wiring) hold() (*held, error) {
	for _, d := range []struct {
		name string
		mode fs.FileMode
	}{{w.Networks, 0o700}, {w.Run, 0o755}, {w.dir("endpoints"), 0o700}, {w.dir("resolvers"), 0o700}} {
		if err := os.MkdirAll(d.name, d.mode); err != nil {
			return nil, fmt.Errorf("networks: %w", err)
		}
		// Whatever the umask of who was first: the responders have to get to the names.
		if err := os.Chmod(d.name, d.mode); err != nil {
			return nil, fmt.Errorf("networks: %w", err)
		}
	}
	lock, err := os.OpenFile(w.dir("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock networks: %w", err)
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	h := &held{Wiring: w, lock: lock, networks: map[string]*network.Network{}, endpoints: map[string]*network.Endpoint{}}
	if err == nil {
		err = removeTemporary(w.dir("endpoints"))
	}
	if err == nil {
		err = errors.Join(readAll(w.Networks, ".json", h.networks), readAll(w.dir("endpoints"), "", h.endpoints))
	}
	if err == nil {
		h.machine, err = link.Open()
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock networks: %w", err)
	}
	return h, nil
}

func (h *held) release() {
	h.machine.Close()
	h.lock.Close()
}

func (w *Wiring) dir(elem ...string) string {
	return filepath.Join(append([]string{w.Run}, elem...)...)
}

// readAll reads a directory of JSON files. What is being written (a name with a dot first) is left out.
func readAll[T any](dir, suffix string, into map[string]*T) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		name, ok := strings.CutSuffix(n.Name(), suffix)
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, n.Name()))
		if err != nil {
			return err
		}
		v := new(T)
		if err := json.Unmarshal(b, v); err != nil {
			return fmt.Errorf("read %s: %w", filepath.Join(dir, n.Name()), err)
		}
		into[name] = v
	}
	return nil
}

// removeTemporary removes what a killed write has left. The lock is held: nobody is writing.
func removeTemporary(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, ".*.new"))
	for _, l := range left {
		err = errors.Join(err, remove(l))
	}
	return err
}

func write(name string, v any, mode fs.FileMode) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return durable.WritePath(name, append(b, '\n'), mode)
}

// remove removes a file that need not be there.
func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (h *held) record(e *network.Endpoint) error {
	h.endpoints[e.Owner] = e
	return write(h.dir("endpoints", e.Owner), e, 0o600)
}

func (h *held) forget(owner string) error {
	delete(h.endpoints, owner)
	return remove(h.dir("endpoints", owner))
}

// Wanted is what an owner asks for: its networks with planned addresses, ports, and whom to ask for foreign names.
type Wanted struct {
	Attachments []network.Attachment
	Ports       []network.Port
	DNS         []netip.Addr
}

// Attach wires a namespace that was just made; whatever its owner had before is gone.
func (w *Wiring) Attach(ctx context.Context, owner string, ns *os.File, want Wanted) error {
	return w.set(ctx, owner, ns, want, true)
}

// Change makes a namespace that is attached be as wanted. What stays the same is not touched.
func (w *Wiring) Change(ctx context.Context, owner string, ns *os.File, want Wanted) error {
	return w.set(ctx, owner, ns, want, false)
}

func (w *Wiring) set(ctx context.Context, owner string, ns *os.File, want Wanted, anew bool) error {
	h, err := w.hold()
	if err != nil {
		return err
	}
	defer h.release()
	if err := h.set(ctx, owner, ns, want, anew); err != nil {
		return fmt.Errorf("attach %s: %w", owner, err)
	}
	return nil
}

func (h *held) set(ctx context.Context, owner string, ns *os.File, want Wanted, anew bool) error {
	if anew {
		if err := h.drop(owner); err != nil {
			return err
		}
	}
	have, err := h.machine.List()
	if err != nil {
		return err
	}
	if err := h.sweep(have, owner); err != nil {
		return err
	}
	before := h.endpoints[owner]
	e, err := h.endpoint(owner, want, before, have)
	if err != nil {
		return err
	}
	if err := h.portsAreFree(owner, e.Ports, before); err != nil {
		return err
	}
	if err := h.record(e); err != nil {
		return err
	}
	err = h.connect(ctx, e, ns, have)
	if err != nil && anew {
		return errors.Join(err, h.forget(owner), h.settle(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return err
	}
	e.Ready = true
	return h.record(e)
}

// drop removes an owner's links and its record. What others see of it goes in settle.
func (h *held) drop(owner string) error {
	if e := h.endpoints[owner]; e != nil {
		for _, l := range e.Links {
			if err := h.machine.Remove(l.Host); err != nil {
				return err
			}
		}
	}
	return h.forget(owner)
}

// sweep forgets endpoints that are gone: those without any of their links. owner is in the hands of the caller.
func (h *held) sweep(have link.Links, owner string) error {
	for name, e := range h.endpoints {
		if name == owner {
			continue
		}
		dead := !slices.ContainsFunc(e.Links, func(l network.Link) bool { return have.Veths[l.Host] })
		if n, ok := strings.CutPrefix(name, network.NamespacePrefix); ok {
			if dead = !e.Ready || !h.mounted(n); dead {
				if err := h.unmount(n); err != nil {
					return err
				}
			}
		}
		if dead {
			if err := h.forget(name); err != nil {
				return err
			}
		}
	}
	return h.sweepNamespaces(owner)
}

// endpoint is what the owner's record is to be. Links that are there and stay keep their names.
func (h *held) endpoint(owner string, want Wanted, before *network.Endpoint, have link.Links) (*network.Endpoint, error) {
	e := &network.Endpoint{Owner: owner, Ports: want.Ports, DNS: want.DNS}
	kept := map[string]network.Link{}
	if before != nil {
		for _, l := range before.Links {
			if have.Veths[l.Host] {
				kept[l.Network] = l
			}
		}
	}
	names := &network.Endpoint{}
	for _, l := range kept {
		names.Links = append(names.Links, l)
	}
	for _, a := range want.Attachments {
		n := h.networks[a.Network]
		if n == nil {
			return nil, fmt.Errorf("network %s: %w", a.Network, network.ErrNoNetwork)
		}
		name := kept[a.Network].Name
		if name == "" {
			name = names.FreeName()
		}
		l := network.NewLink(owner, n, a, name)
		if old, ok := kept[a.Network]; ok && !slices.Equal(old.Addresses, l.Addresses) {
			return nil, fmt.Errorf("network %s: has the addresses %v, not %v: disconnect it first", a.Network, old.Addresses, l.Addresses)
		}
		if len(l.Prefixes) != len(n.Subnets) {
			return nil, fmt.Errorf("network %s: its subnets do not hold the addresses %v: disconnect it and connect it again", a.Network, a.Addresses)
		}
		e.Links, names.Links = append(e.Links, l), append(names.Links, l)
	}
	return e, nil
}

// connect makes the links that are missing and then all that is seen from outside.
func (h *held) connect(ctx context.Context, e *network.Endpoint, ns *os.File, have link.Links) error {
	for _, l := range e.Links {
		if have.Veths[l.Host] {
			continue
		}
		if err := h.machine.EnsureBridge(h.networks[l.Network]); err != nil {
			return err
		}
		var rank int
		if _, err := fmt.Sscanf(l.Name, "eth%d", &rank); err != nil {
			return fmt.Errorf("link %q: %w", l.Name, err)
		}
		if err := h.machine.Plug(e.Owner, l, int(ns.Fd()), rank); err != nil {
			return err
		}
	}
	if err := h.settle(ctx); err != nil {
		return err
	}
	return link.ForgetFlows(e.Ports)
}

// Release detaches an owner. That it is not attached is no error.
func (w *Wiring) Release(ctx context.Context, owner string) error {
	h, err := w.hold()
	if err != nil {
		return err
	}
	defer h.release()
	var ports []network.Port
	if e := h.endpoints[owner]; e != nil {
		ports = e.Ports
	}
	if name, ok := strings.CutPrefix(owner, network.NamespacePrefix); ok {
		if err := h.unmount(name); err != nil {
			return err
		}
	}
	if err := h.forget(owner); err != nil {
		return err
	}
	if err := h.sweepAndSettle(ctx); err != nil {
		return fmt.Errorf("detach %s: %w", owner, err)
	}
	return link.ForgetFlows(ports)
}

// Reload makes the kernel be as the records say, whatever has changed it.
func (w *Wiring) Reload(ctx context.Context) error {
	h, err := w.hold()
	if err != nil {
		return err
	}
	defer h.release()
	return h.sweepAndSettle(ctx)
}

func (h *held) sweepAndSettle(ctx context.Context) error {
	have, err := h.machine.List()
	if err != nil {
		return err
	}
	if err := h.sweep(have, ""); err != nil {
		return err
	}
	return h.settle(ctx)
}

// Endpoints returns who is attached.
func (w *Wiring) Endpoints() (map[string]*network.Endpoint, error) {
	out := map[string]*network.Endpoint{}
	err := readAll(w.dir("endpoints"), "", out)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return out, err
}
