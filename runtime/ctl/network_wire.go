package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/link"
	"github.com/proa-os/proa/runtime/network"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/wiring"
)

// wires is the machine's networks, with this machine's service manager.
func (e *Env) wires() *wiring.Wiring {
	w := e.Networks
	w.Sockets = e.Units
	w.Warn = e.warn
	return &w
}

func claim(k *store.Container) wiring.Claim {
	return wiring.Claim{Owner: k.Name, Attachments: k.Networks, Ports: k.Publish}
}

func wanted(k *store.Container) wiring.Wanted {
	return wiring.Wanted{Attachments: k.Networks, Ports: k.Publish, DNS: k.DNS}
}

// planNetwork gives a container that is about to be stored its addresses and ports. publishing says whether it asks for ports now. The
// store's lock is held.
func (c *call) planNetwork(k *store.Container, publishing bool) error {
	if k.Network != network.Default {
		return nil
	}
	others, err := c.claims()
	if err != nil {
		return err
	}
	mine := claim(k)
	mine.Publishing = publishing
	if err := c.wires().Plan(&mine, others); err != nil {
		return err
	}
	k.Networks, k.Publish = mine.Attachments, mine.Ports
	return nil
}

// claims are what all containers have.
func (c *call) claims() ([]wiring.Claim, error) {
	all, err := c.store.Containers()
	if err != nil {
		return nil, err
	}
	var out []wiring.Claim
	for _, o := range all {
		out = append(out, claim(o))
	}
	return out, nil
}

// enterNetwork puts this thread, for good, into the network namespace in which the container is to run. A new one lives as long as
// somebody is in it: from here to execve that is this thread, so that a kill leaves nothing.
func (c *call) enterNetwork(ctx context.Context, name string) error {
	k, err := c.store.Container(name)
	if err != nil {
		return err
	}
	var ns *os.File
	switch mode, rest, _ := strings.Cut(k.Network, ":"); mode {
	case "host", "none":
		return nil
	case "ns":
		ns, err = os.Open(rest)
	case "container":
		ns, err = c.namespaceOf(rest, "net")
		if errors.Is(err, run.ErrNotExist) {
			err = fmt.Errorf("the container %s, whose network it shares, does not run: %w", rest, err)
		}
	default:
		if ns, err = link.NewNamespace(); err == nil {
			err = c.wires().Attach(ctx, k.Name, ns, wanted(k))
		}
	}
	if ns != nil {
		defer ns.Close()
	}
	if err != nil {
		return err
	}
	runtime.LockOSThread() // never unlocked
	return link.Enter(ns)
}

// pidNamespace is a path of the namespace of another container's processes, for as long as this process lives, also as another program; ""
// if none is wanted.
func (c *call) pidNamespace(k *store.Container) (string, error) {
	other, ok := strings.CutPrefix(k.PID, "container:")
	if !ok {
		return "", nil
	}
	ns, err := c.namespaceOf(other, "pid")
	if errors.Is(err, run.ErrNotExist) {
		err = fmt.Errorf("the container %s, whose processes it shares, does not run: %w", other, err)
	}
	if err != nil {
		return "", err
	}
	defer ns.Close()
	fd, err := unix.Dup(int(ns.Fd())) // oci-runtime hands none on that it is not told to
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), err
}

// namespaceOf opens a namespace of a running container: net, pid.
func (e *Env) namespaceOf(name, kind string) (*os.File, error) {
	st, err := e.OCIRoot.Load(name)
	if err != nil {
		return nil, err
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", st.Pid, kind))
	if err != nil {
		return nil, err
	}
	// The number may be another process's by now; one that still runs has had it all along.
	if st, err = e.OCIRoot.Load(name); err != nil || st.Status != specs.StateRunning {
		ns.Close()
		return nil, fmt.Errorf("%s does not run: %w", name, errors.Join(err, run.ErrNotExist))
	}
	return ns, nil
}

// releaseNetwork detaches a container that does not run any more.
func (e *Env) releaseNetwork(ctx context.Context, k *store.Container) error {
	if k.Network != network.Default {
		return nil
	}
	return e.wires().Release(ctx, k.Name)
}

// writeNames writes /etc/hosts and /etc/resolv.conf of a container over those that bundle.Prepare has made.
func (c *call) writeNames(name string) error {
	k, err := c.store.Container(name)
	if err != nil {
		return err
	}
	return c.writeNamesOf(k)
}

func (c *call) writeNamesOf(k *store.Container) error {
	files := filepath.Join(c.store.ContainerDir(k.Name), "files")
	if other, ok := strings.CutPrefix(k.Network, "container:"); ok {
		return copyNames(filepath.Join(c.store.ContainerDir(other), "files"), files)
	}
	n, err := c.naming(k)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(files, "hosts"), []byte(n.hosts()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(files, "resolv.conf"), []byte(n.resolv()), 0o644)
}

// copyNames takes another container's files. It may have made links of them: they are opened below its directory only.
func copyNames(from, to string) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range []string{"hosts", "resolv.conf"} {
		b, err := root.ReadFile(f)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, f), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// naming collects what a container's names follow from.
func (c *call) naming(k *store.Container) (*naming, error) {
	n := &naming{k: k, machine: readResolv("/etc/resolv.conf")}
	if len(n.machine.servers) > 0 && n.machine.servers[0].IsLoopback() && k.Network != "host" {
		// The machine's own resolver is not to be reached from another namespace; those it asks are.
		if behind := readResolv("/run/systemd/resolve/resolv.conf"); len(behind.servers) > 0 {
			n.machine.servers = behind.servers
		}
	}
	attachments := k.Networks
	if path, ok := strings.CutPrefix(k.Network, "ns:"); ok {
		eps, err := c.wires().Endpoints()
		if err != nil {
			return nil, err
		}
		if e := eps[network.NamespacePrefix+filepath.Base(path)]; e != nil {
			for _, l := range e.Links {
				attachments = append(attachments, network.Attachment{Network: l.Network, Addresses: l.Addresses})
			}
			if len(k.DNS) == 0 {
				n.fallback = e.DNS
			}
		}
	}
	for i, a := range attachments {
		def, err := c.wires().Get(a.Network)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			n.addresses = a.Addresses
			if len(def.Subnets) > 0 {
				n.gateway = def.Subnets[0].Gateway
			}
			n.fallback = append(n.fallback, def.DNS...)
		}
		if !n.resolver.IsValid() {
			n.resolver = def.Resolver()
		}
	}
	return n, nil
}

// naming is what a container's names follow from.
type naming struct {
	k         *store.Container
	addresses []netip.Addr // its own, in its first network
	gateway   netip.Addr   // the machine, as it sees it
	resolver  netip.Addr   // where containers' names are answered
	fallback  []netip.Addr // whom its network asks for foreign names
	machine   resolvConf
}

// hosts is /etc/hosts.
func (n *naming) hosts() string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	own := n.k.Hostname
	if own == "" {
		own = n.k.Name
	}
	names := own
	if n.k.Name != own {
		names += " " + n.k.Name
	}
	if len(n.addresses) == 0 {
		fmt.Fprintf(&b, "127.0.1.1\t%s\n", own)
	}
	for _, a := range n.addresses {
		fmt.Fprintf(&b, "%s\t%s\n", a, names)
	}
	for _, h := range n.k.Hosts {
		name, addr, _ := strings.Cut(h, ":")
		if addr == "host-gateway" {
			addr = "127.0.0.1"
			if n.gateway.IsValid() {
				addr = n.gateway.String()
			}
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, name)
	}
	return b.String()
}

// resolv is /etc/resolv.conf. Where names of containers are answered, that is the one server: it knows whom to ask for others.
func (n *naming) resolv() string {
	var b strings.Builder
	servers := n.machine.servers
	switch {
	case n.k.Network == "none" && len(n.k.DNS) == 0:
		return ""
	case n.resolver.IsValid():
		servers = []netip.Addr{n.resolver}
	case len(n.k.DNS) > 0:
		servers = n.k.DNS
	case len(n.fallback) > 0:
		servers = n.fallback
	}
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	search := n.machine.search
	if len(n.k.DNSSearch) > 0 {
		search = n.k.DNSSearch
	}
	if len(search) > 0 && search[0] != "." {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	options := n.k.DNSOptions
	if len(options) == 0 {
		options = n.machine.options
		if n.resolver.IsValid() {
			options = []string{"ndots:0"} // a container's name has no dot and is asked for as it is
		}
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.String()
}

// resolvConf is what resolv.conf(5) says.
type resolvConf struct {
	servers         []netip.Addr
	search, options []string
}

// readResolv reads a resolv.conf as far as it is there and can be understood, as resolvers do.
func readResolv(name string) (r resolvConf) {
	b, err := os.ReadFile(name)
	if err != nil {
		return r
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				r.servers = append(r.servers, a)
			}
		case "search", "domain":
			r.search = f[1:]
		case "options":
			r.options = append(r.options, f[1:]...)
		}
	}
	return r
}
