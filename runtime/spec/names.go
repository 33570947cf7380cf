package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capNames is capabilities(7) in the kernel's order: the index is the number (include/uapi/linux/capability.h).
var capNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// Capability returns the number of a capability named as in "CAP_CHOWN".
func Capability(name string) (int, bool) {
	n := slices.Index(capNames[:], name)
	return max(n, 0), n >= 0
}

// CapabilityNames returns all known names, in the kernel's order.
func CapabilityNames() []string { return slices.Clone(capNames[:]) }

// CapSets are the five sets of capabilities(7) as bit masks.
type CapSets struct {
	Bounding, Effective, Permitted, Inheritable, Ambient uint64
}

// Capabilities turns the names into masks. A missing section means no capability at all. What cannot be granted, because nobody knows the
// name or because it is not among those that the caller has, is left out with a warning: config.md wants a start nevertheless.
func Capabilities(c *specs.LinuxCapabilities, have uint64) (s CapSets, warnings []string, err error) {
	if c == nil {
		return s, nil, nil
	}
	for _, l := range []struct {
		field string
		names []string
		mask  *uint64
	}{
		{"bounding", c.Bounding, &s.Bounding},
		{"permitted", c.Permitted, &s.Permitted},
		{"effective", c.Effective, &s.Effective},
		{"inheritable", c.Inheritable, &s.Inheritable},
		{"ambient", c.Ambient, &s.Ambient},
	} {
		for i, name := range l.names {
			n, ok := Capability(name)
			why := ""
			switch bit := uint64(1) << n; {
			case !ok:
				why = "no capability is called so"
			case l.field != "bounding" && have&bit == 0:
				why = "the caller does not have it"
			case l.field == "ambient" && s.Permitted&s.Inheritable&bit == 0:
				why = "it is not both permitted and inheritable"
			default:
				*l.mask |= bit
				continue
			}
			warnings = append(warnings, fmt.Sprintf("process.capabilities.%s[%d]: cannot grant %s: %s", l.field, i, name, why))
		}
	}
	if s.Effective&^s.Permitted != 0 {
		return s, nil, fmt.Errorf("process.capabilities.effective: holds what permitted does not")
	}
	return s, warnings, nil
}

// A Rlimit is one setrlimit(2).
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}

var rlimitNames = [...]struct {
	name     string
	resource int
}{
	{"RLIMIT_AS", unix.RLIMIT_AS}, {"RLIMIT_CORE", unix.RLIMIT_CORE}, {"RLIMIT_CPU", unix.RLIMIT_CPU},
	{"RLIMIT_DATA", unix.RLIMIT_DATA}, {"RLIMIT_FSIZE", unix.RLIMIT_FSIZE}, {"RLIMIT_LOCKS", unix.RLIMIT_LOCKS},
	{"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK}, {"RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE}, {"RLIMIT_NICE", unix.RLIMIT_NICE},
	{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE}, {"RLIMIT_NPROC", unix.RLIMIT_NPROC}, {"RLIMIT_RSS", unix.RLIMIT_RSS},
	{"RLIMIT_RTPRIO", unix.RLIMIT_RTPRIO}, {"RLIMIT_RTTIME", unix.RLIMIT_RTTIME}, {"RLIMIT_SIGPENDING", unix.RLIMIT_SIGPENDING},
	{"RLIMIT_STACK", unix.RLIMIT_STACK},
}

// Rlimits turns the names into numbers; one that appears twice is an error, as config.md demands.
func Rlimits(ls []specs.POSIXRlimit) ([]Rlimit, error) {
	var out []Rlimit
	seen := make(map[string]bool)
	for i, l := range ls {
		field := fmt.Sprintf("process.rlimits[%d]", i)
		if seen[l.Type] {
			return nil, fmt.Errorf("%s: %s appears twice", field, l.Type)
		}
		seen[l.Type] = true
		if l.Soft > l.Hard {
			return nil, fmt.Errorf("%s: %s: soft %d is above hard %d", field, l.Type, l.Soft, l.Hard)
		}
		found := false
		for _, n := range rlimitNames {
			if n.name == l.Type {
				out = append(out, Rlimit{n.resource, l.Soft, l.Hard})
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("%s: no limit is called %q", field, l.Type)
		}
	}
	return out, nil
}

// A Namespace says what a container does about one type.
type Namespace struct {
	Wanted bool   // listed: new, or joined when Path is set; not listed means shared with the caller
	Path   string // file of a namespace to join
}

// CloneFlag returns the CLONE_NEW* flag of a type.
func CloneFlag(t specs.LinuxNamespaceType) uintptr {
	switch t {
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET
	case specs.MountNamespace:
		return unix.CLONE_NEWNS
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER
	case specs.TimeNamespace:
		return unix.CLONE_NEWTIME
	}
	return 0
}

// Namespaces checks the list and indexes it by type.
func Namespaces(list []specs.LinuxNamespace) (map[specs.LinuxNamespaceType]Namespace, error) {
	out := make(map[specs.LinuxNamespaceType]Namespace)
	for i, n := range list {
		field := fmt.Sprintf("linux.namespaces[%d]", i)
		if out[n.Type].Wanted {
			return nil, fmt.Errorf("%s: type %s appears twice", field, n.Type)
		}
		switch {
		case CloneFlag(n.Type) == 0:
			return nil, fmt.Errorf("%s: no namespace is of type %q", field, n.Type)
		case n.Path != "" && !strings.HasPrefix(n.Path, "/"):
			return nil, fmt.Errorf("%s.path: want an absolute path, found %q", field, n.Path)
		}
		out[n.Type] = Namespace{Wanted: true, Path: n.Path}
	}
	return out, nil
}
