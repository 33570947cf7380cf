// Package spec reads config.json: the OCI runtime-spec's configuration, in the subset oci-runtime carries out.
//
// It stands first in oci-runtime's flow: Parse turns the bytes of a bundle's config.json into a *specs.Spec that is
// completely supported, so that the packages behind it (seccomp, run) never meet a field they would ignore.
//
// What it refuses: a field that the specification defines and this runtime does not carry out, whenever it has a
// value (other systems' sections, virtual machines). The error is an *UnsupportedError with the field's path.
// Fields that the specification does not define are ignored, as it demands (runtime-spec config.md, "Extensibility"), and so is
// process.consoleSize of a process without a terminal.
//
// Specification: opencontainers/runtime-spec 1.3, config.md and config-linux.md.
package spec

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxConfig is far above any real config.json (a complete one with a seccomp list has 20 KB).
const maxConfig = 16 << 20

// An UnsupportedError names a field of config.json that has a value this runtime cannot carry out.
type UnsupportedError struct {
	Field  string // path as in "process.terminal" or "mounts[3].uidMappings"
	Reason string // what there is instead; may be empty
}

func (e *UnsupportedError) Error() string {
	if e.Reason == "" {
		return e.Field + " is not supported: remove it from config.json"
	}
	return e.Field + " is not supported: " + e.Reason
}

// Load reads and checks the config.json of the bundle in dir. It returns the bytes as well.
func Load(dir string) (*specs.Spec, []byte, error) {
	file := filepath.Join(dir, "config.json")
	b, err := read(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read bundle: %w", err)
	}
	s, err := Parse(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, b, nil
}

// read reads a regular file by plain calls: package os would ask whether it can be polled.
func read(file string) ([]byte, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: file, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxConfig {
		return nil, fmt.Errorf("%s: want a regular file of at most %d bytes, found %d bytes, mode %o", file, maxConfig, st.Size, st.Mode)
	}
	b := make([]byte, st.Size)
	for n := 0; n < len(b); {
		m, err := unix.Read(fd, b[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: file, Err: err}
		}
		if m == 0 {
			return nil, fmt.Errorf("%s: it shrinks while it is read", file)
		}
		n += m
	}
	return b, nil
}

// Parse decodes config.json and checks it. What it returns has a process, a root and a linux section, only supported
// fields, known names (capabilities, limits, namespaces) and clean absolute paths inside the container.
func Parse(b []byte) (*specs.Spec, error) {
	var s specs.Spec
	if err := decode(b, &s); err != nil {
		return nil, fmt.Errorf("parse config: %w", err)
	}
	if err := Check(&s); err != nil {
		return nil, fmt.Errorf("check config: %w", err)
	}
	return &s, nil
}

// Decode decodes a config.json that has been checked before.
func Decode(b []byte) (*specs.Spec, error) {
	s := new(specs.Spec)
	return s, decode(b, s)
}

// Check is Parse for a configuration made in memory.
func Check(s *specs.Spec) error {
	major, _, _ := strings.Cut(s.Version, ".")
	if major != "1" {
		return fmt.Errorf("ociVersion: want 1.x, found %q", s.Version)
	}
	if s.Process == nil {
		return fmt.Errorf("process: missing")
	}
	if s.Root == nil || s.Root.Path == "" {
		return fmt.Errorf("root.path: missing")
	}
	if s.Linux == nil {
		return fmt.Errorf("linux: missing")
	}
	if err := unsupported(s); err != nil {
		return err
	}
	if err := checkProcess(s.Process); err != nil {
		return err
	}
	if err := checkMounts(s.Mounts); err != nil {
		return err
	}
	if err := checkHooks(s.Hooks); err != nil {
		return err
	}
	return checkLinux(s)
}

func checkHooks(h *specs.Hooks) error {
	if h == nil {
		return nil
	}
	for _, l := range []struct {
		field string
		hooks []specs.Hook
	}{{"prestart", h.Prestart}, {"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer}, {"startContainer", h.StartContainer},
		{"poststart", h.Poststart}, {"poststop", h.Poststop}} {
		for i, k := range l.hooks {
			if !path.IsAbs(k.Path) {
				return fmt.Errorf("hooks.%s[%d].path: want an absolute path, found %q", l.field, i, k.Path)
			}
			if k.Timeout != nil && *k.Timeout <= 0 {
				return fmt.Errorf("hooks.%s[%d].timeout: want more than 0, found %d", l.field, i, *k.Timeout)
			}
		}
	}
	return nil
}

// CheckProcess checks a process section given to exec.
func CheckProcess(p *specs.Process) error {
	if err := walk("process", p); err != nil {
		return err
	}
	return checkProcess(p)
}

func checkProcess(p *specs.Process) error {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return fmt.Errorf("process.args: no program")
	}
	if !path.IsAbs(p.Cwd) {
		return fmt.Errorf("process.cwd: want an absolute path, found %q", p.Cwd)
	}
	for i, e := range p.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return fmt.Errorf("process.env[%d]: want NAME=value, found %q", i, e)
		}
	}
	for _, list := range [][]string{p.Args, p.Env, {p.Cwd}} {
		for _, v := range list {
			if strings.ContainsRune(v, 0) {
				return fmt.Errorf("process: a NUL byte in %q", v)
			}
		}
	}
	if _, _, err := Capabilities(p.Capabilities, ^uint64(0)); err != nil {
		return err
	}
	if _, err := Rlimits(p.Rlimits); err != nil {
		return err
	}
	if _, err := Schedule(p.Scheduler); err != nil {
		return err
	}
	if _, _, err := IOPriority(p.IOPriority); err != nil {
		return err
	}
	if _, _, err := Affinity(p.ExecCPUAffinity); err != nil {
		return err
	}
	if a := p.OOMScoreAdj; a != nil && (*a < -1000 || *a > 1000) {
		return fmt.Errorf("process.oomScoreAdj: want -1000 to 1000, found %d", *a)
	}
	return nil
}

func checkMounts(ms []specs.Mount) error {
	for i, m := range ms {
		if m.Destination == "" {
			return fmt.Errorf("mounts[%d].destination: missing", i)
		}
		if Destination(m) == "/" {
			return fmt.Errorf("mounts[%d].destination: / is root.path's place", i)
		}
		if _, err := ParseMount(m); err != nil {
			return fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
	}
	return nil
}

func checkLinux(s *specs.Spec) error {
	ns, err := Namespaces(s.Linux.Namespaces)
	if err != nil {
		return err
	}
	if s.Hostname != "" && !ns[specs.UTSNamespace].Wanted {
		return fmt.Errorf("hostname: needs a namespace of type uts in linux.namespaces")
	}
	if s.Domainname != "" && !ns[specs.UTSNamespace].Wanted {
		return fmt.Errorf("domainname: needs a namespace of type uts in linux.namespaces")
	}
	for key := range s.Linux.Sysctl {
		if err := checkSysctl(key, ns); err != nil {
			return err
		}
	}
	if p := s.Linux.RootfsPropagation; p != "" {
		if _, ok := Propagation(p); !ok {
			return fmt.Errorf("linux.rootfsPropagation: want private, shared, slave or unbindable, perhaps with an r in front; found %q", p)
		}
	}
	if err := checkUserNamespace(s.Linux, ns); err != nil {
		return err
	}
	if n := ns[specs.TimeNamespace]; len(s.Linux.TimeOffsets) > 0 && (!n.Wanted || n.Path != "") {
		return fmt.Errorf("linux.timeOffsets: needs a new namespace of type time in linux.namespaces")
	}
	for clock := range s.Linux.TimeOffsets {
		if clock != "boottime" && clock != "monotonic" {
			return fmt.Errorf("linux.timeOffsets: want boottime and monotonic, found %q", clock)
		}
	}
	if _, _, err := Personality(s.Linux.Personality); err != nil {
		return err
	}
	if _, err := Memory(s.Linux.MemoryPolicy); err != nil {
		return err
	}
	if err := checkNetDevices(s.Linux, ns); err != nil {
		return err
	}
	if err := checkRdt(s.Linux.IntelRdt); err != nil {
		return err
	}
	for i, d := range s.Linux.Devices {
		if !path.IsAbs(d.Path) || path.Clean(d.Path) == "/" {
			return fmt.Errorf("linux.devices[%d].path: want an absolute path, found %q", i, d.Path)
		}
		if !slices.Contains([]string{"c", "u", "b", "p"}, d.Type) {
			return fmt.Errorf("linux.devices[%d].type: want c, u, b or p, found %q", i, d.Type)
		}
	}
	for _, l := range []struct {
		field string
		paths []string
	}{{"linux.maskedPaths", s.Linux.MaskedPaths}, {"linux.readonlyPaths", s.Linux.ReadonlyPaths}} {
		for i, p := range l.paths {
			if !path.IsAbs(p) {
				return fmt.Errorf("%s[%d]: want an absolute path, found %q", l.field, i, p)
			}
		}
	}
	for _, part := range strings.Split(s.Linux.CgroupsPath, "/") {
		if part == ".." || strings.ContainsRune(part, 0) {
			return fmt.Errorf("linux.cgroupsPath: found %q", s.Linux.CgroupsPath)
		}
	}
	return nil
}

// checkNetDevices wants names that the kernel takes (dev_valid_name), and a namespace to move the devices to.
func checkNetDevices(l *specs.Linux, ns map[specs.LinuxNamespaceType]Namespace) error {
	if len(l.NetDevices) > 0 && !ns[specs.NetworkNamespace].Wanted {
		return fmt.Errorf("linux.netDevices: needs a namespace of type network in linux.namespaces")
	}
	for host, d := range l.NetDevices {
		for _, name := range []string{host, cmp.Or(d.Name, host)} {
			if len(name) == 0 || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\r\v\f\x00") {
				return fmt.Errorf("linux.netDevices.%s: %q is no name of a network device", host, name)
			}
		}
		if rest := strings.Replace(d.Name, "%d", "", 1); strings.Contains(rest, "%") || strings.Contains(host, "%") {
			return fmt.Errorf("linux.netDevices.%s.name: want at most one %%d in it, found %q", host, d.Name)
		}
	}
	return nil
}

// checkRdt makes sure that nothing leaves the directory of resctrl or its line of schemata.
func checkRdt(r *specs.LinuxIntelRdt) error {
	if r == nil {
		return nil
	}
	if r.ClosID != "/" && (strings.ContainsAny(r.ClosID, "/\x00\n") || r.ClosID == "." || r.ClosID == "..") {
		return fmt.Errorf("linux.intelRdt.closID: want one name or /, found %q", r.ClosID)
	}
	if r.MemBwSchema != "" && !strings.HasPrefix(r.MemBwSchema, "MB:") {
		return fmt.Errorf("linux.intelRdt.memBwSchema: want MB: at its beginning, found %q", r.MemBwSchema)
	}
	for _, l := range append([]string{r.L3CacheSchema, r.MemBwSchema}, r.Schemata...) {
		if strings.Contains(l, "\n") {
			return fmt.Errorf("linux.intelRdt: want one line, found %q", l)
		}
	}
	return nil
}

func checkUserNamespace(l *specs.Linux, ns map[specs.LinuxNamespaceType]Namespace) error {
	for _, m := range []struct {
		field string
		maps  []specs.LinuxIDMapping
	}{{"linux.uidMappings", l.UIDMappings}, {"linux.gidMappings", l.GIDMappings}} {
		n := ns[specs.UserNamespace]
		if (len(m.maps) > 0) != n.Wanted && n.Path == "" {
			return fmt.Errorf("%s: wanted with a namespace of type user in linux.namespaces, and only then", m.field)
		}
		zero := len(m.maps) == 0
		for i, e := range m.maps {
			zero = zero || e.ContainerID == 0
			if e.Size == 0 {
				return fmt.Errorf("%s[%d].size: found 0", m.field, i)
			}
		}
		if !zero {
			return fmt.Errorf("%s: the container's id 0 is not mapped", m.field)
		}
	}
	return nil
}

// SysctlNamespace returns the type of namespace that a setting belongs to, or "" if it is the whole machine's.
func SysctlNamespace(key string) specs.LinuxNamespaceType {
	k := strings.ReplaceAll(key, "/", ".")
	switch {
	case strings.Contains(k, ".."):
	case strings.HasPrefix(k, "net."):
		return specs.NetworkNamespace
	case strings.HasPrefix(k, "fs.mqueue."), strings.HasPrefix(k, "kernel.shm"), strings.HasPrefix(k, "kernel.msg"), k == "kernel.sem":
		return specs.IPCNamespace
	case k == "kernel.domainname", k == "kernel.hostname":
		return specs.UTSNamespace
	}
	return ""
}

// checkSysctl lets only settings through that belong to a namespace the container has for itself, or joins (package run compares it
// with the caller's); any other would change the host.
func checkSysctl(key string, ns map[specs.LinuxNamespaceType]Namespace) error {
	need := SysctlNamespace(key)
	if need == "" {
		return fmt.Errorf("linux.sysctl.%s: not a setting of one namespace: it would change the host", key)
	}
	if !ns[need].Wanted {
		return fmt.Errorf("linux.sysctl.%s: needs a namespace of type %s in linux.namespaces", key, need)
	}
	return nil
}
