// Package bundle makes what oci-runtime starts from what containerctl has stored: config.json, the few files of /etc that
// are the machine's to say, and the overlay mount.
//
// containerctl launch calls it at each start of a container's unit, so that a container that an older release of the OS
// created runs with the defaults of this one. Spec is the decision, from values only; Prepare does the mounts and the files.
//
// The default is docker's: own pid, mount, ipc, uts and cgroup namespaces, thirteen capabilities (docker's without
// CAP_MKNOD: devices are the unit's DevicePolicy= to give), the default seccomp list, masked and read-only paths in /proc
// and /sys. Image volumes are plain directories of the container.
package bundle

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/reaper"
	"github.com/proa-os/proa/runtime/seccomp"
	"github.com/proa-os/proa/runtime/spec"
	"github.com/proa-os/proa/runtime/store"
)

// User is the outcome of looking a user up in the container's /etc/passwd and /etc/group.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Home     string // "" if unknown
}

// Place says where the files of a bundle are.
type Place struct {
	Rootfs string // the overlay's mount point
	Files  string // directory with resolv.conf, hosts and hostname
}

// Start is what is different at each start of a container.
type Start struct {
	Terminal bool     // somebody is attached who has one
	Env      []string // further variables
	Notify   string   // socket of the service manager's for the workload, or ""
	PIDs     string   // with PID container:NAME: a path of that one's namespace
	Init     string   // the program for process 1 of a container with Init; default oci-runtime where the OS has it
}

// held reports whether the container has a terminal at which nobody sits: then process 1 holds it.
func (s Start) held(c *store.Container) bool { return c.Terminal && !s.Terminal }

// defaultCaps are docker's without MKNOD.
var defaultCaps = [...]string{"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"}

// Spec returns the configuration for a container.
func Spec(c *store.Container, img *image.Config, u User, p Place, start Start) (*specs.Spec, error) {
	args, err := Command(c, img)
	if err != nil {
		return nil, err
	}
	switch {
	case start.held(c):
		args = append([]string{reaper.Path, "-t", "--"}, args...)
	case c.Init:
		args = append([]string{reaper.Path, "--"}, args...)
	}
	caps, err := capabilities(c)
	if err != nil {
		return nil, err
	}
	mounts, err := mounts(c, p, start)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			User:     specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups},
			Terminal: start.Terminal,
			Args:     args,
			Env:      environment(c, img, u, start),
			Cwd:      WorkDir(c, img),
			Rlimits:  rlimits(c),
			// Neither inheritable nor ambient: a process that is not root gains none.
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			NoNewPrivileges: c.NoNewPrivileges,
			OOMScoreAdj:     c.OOMScoreAdj,
		},
		Root:   &specs.Root{Path: p.Rootfs, Readonly: c.ReadOnly},
		Mounts: mounts,
		Linux: &specs.Linux{
			Namespaces:    namespaces(c, start),
			Seccomp:       seccomp.Default(caps),
			MaskedPaths:   slices.Clone(masked[:]),
			ReadonlyPaths: slices.Clone(readOnly[:]),
			Sysctl:        c.Sysctls,
		},
		Annotations: c.Labels,
	}
	if err := secure(s, c); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", c.Name, err)
	}
	addUserNamespace(s, c)
	if c.UTS == "" {
		s.Hostname, s.Domainname = hostname(c), c.Domainname
	}
	if err := spec.Check(s); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", c.Name, err)
	}
	return s, nil
}

// namespaces are those that the container has for itself, or joins.
func namespaces(c *store.Container, start Start) []specs.LinuxNamespace {
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		mode string
	}{{specs.PIDNamespace, c.PID}, {specs.IPCNamespace, c.IPC}, {specs.UTSNamespace, c.UTS}, {specs.CgroupNamespace, c.CgroupNS}} {
		switch {
		case n.mode == "host":
		case strings.HasPrefix(n.mode, "container:"):
			out = append(out, specs.LinuxNamespace{Type: n.kind, Path: start.PIDs})
		default:
			out = append(out, specs.LinuxNamespace{Type: n.kind})
		}
	}
	switch c.Network {
	case "host":
	case "none":
		out = append(out, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	default:
		// containerctl launch is in the container's namespace already; naming it here makes oci-runtime exec enter it.
		out = append(out, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/thread-self/ns/net"})
	}
	return out
}

// Command is what docker makes of entrypoint and command: an entrypoint of the container's own leaves the image's command
// out.
func Command(c *store.Container, img *image.Config) ([]string, error) {
	entry, cmd := img.Config.Entrypoint, img.Config.Cmd
	if len(c.Entrypoint) > 0 {
		entry, cmd = c.Entrypoint, nil
		if entry[0] == "" {
			entry = nil
		}
	}
	if len(c.Args) > 0 {
		cmd = c.Args
	}
	args := slices.Concat(entry, cmd)
	if len(args) == 0 {
		return nil, fmt.Errorf("the image %s names no command: give one behind the image", c.Image)
	}
	return args, nil
}

// WorkDir is the working directory.
func WorkDir(c *store.Container, img *image.Config) string {
	dir := c.WorkDir
	if dir == "" {
		dir = img.Config.WorkingDir
	}
	return path.Clean("/" + dir)
}

func hostname(c *store.Container) string {
	if c.UTS == "host" {
		if name, err := os.Hostname(); err == nil {
			return name
		}
	}
	if c.Hostname != "" {
		return c.Hostname
	}
	return c.Name
}

// environment: the later entry of two with the same name wins.
func environment(c *store.Container, img *image.Config, u User, start Start) []string {
	home := u.Home
	if home == "" {
		home = "/"
	}
	ours := start.Env
	if c.Terminal {
		ours = append(ours, "TERM=xterm")
	}
	if start.Notify != "" {
		ours = append(ours, "NOTIFY_SOCKET="+notifySocket)
	}
	all := slices.Concat([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home, "HOSTNAME=" + hostname(c)},
		ours, img.Config.Env, c.Env)
	var out []string
	at := make(map[string]int)
	for _, e := range all {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}

// capabilities applies --cap-drop and then --cap-add; ALL is all of them.
func capabilities(c *store.Container) ([]string, error) {
	set := make(map[string]bool)
	for _, n := range defaultCaps {
		set[n] = true
	}
	if c.Privileged {
		for _, n := range spec.CapabilityNames() {
			set[n] = true
		}
	}
	apply := func(names []string, on bool) error {
		for _, n := range names {
			n = strings.ToUpper(n)
			if n == "ALL" {
				for _, all := range spec.CapabilityNames() {
					set[all] = on
				}
				continue
			}
			if !strings.HasPrefix(n, "CAP_") {
				n = "CAP_" + n
			}
			if _, ok := spec.Capability(n); !ok {
				return fmt.Errorf("no capability is called %q", n)
			}
			set[n] = on
		}
		return nil
	}
	if err := apply(c.CapDrop, false); err != nil {
		return nil, err
	}
	if err := apply(c.CapAdd, true); err != nil {
		return nil, err
	}
	maps.DeleteFunc(set, func(_ string, on bool) bool { return !on })
	return slices.Sorted(maps.Keys(set)), nil
}

// Capabilities are the names of all that this process has to give.
func Capabilities() ([]string, error) {
	have, err := permitted()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(spec.CapabilityNames(), func(n string) bool { return !have[n] }), nil
}
