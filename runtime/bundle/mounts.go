package bundle

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/reaper"
	"github.com/proa-os/proa/runtime/store"
)

// notifySocket is where a workload that says when it is ready finds the service manager.
const notifySocket = "/run/notify/notify.sock"

// defaultShm is the size of /dev/shm.
const defaultShm = 64 << 20

func mounts(c *store.Container, p Place, start Start) ([]specs.Mount, error) {
	own := func(target, source string) specs.Mount {
		return specs.Mount{Destination: target, Type: "bind", Source: source, Options: []string{"bind", "nosuid", "nodev", "noexec"}}
	}
	file := func(target, name string) specs.Mount { return own(target, path.Join(p.Files, name)) }
	shm := c.ShmSize
	if shm == 0 {
		shm = defaultShm
	}
	system := "ro"
	if c.Privileged {
		system = "rw"
	}
	ms := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10)}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", system}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup2", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", system}},
	}
	ms[3], ms[4] = memory(c, ms[3], ms[4])
	if c.IDs != nil && c.Network != "none" {
		// sysfs belongs to the network namespace's user namespace, which is not the container's.
		ms[5] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro", "rro"}}
		ms = slices.Delete(ms, 6, 7)
	}
	if _, err := os.Stat(ms[4].Source); c.IPC == "host" && errors.Is(err, fs.ErrNotExist) {
		ms = slices.Delete(ms, 4, 5) // the machine has mounted no message queues: there are none to share
	}
	ms = append(ms, file("/etc/resolv.conf", "resolv.conf"), file("/etc/hosts", "hosts"), file("/etc/hostname", "hostname"))
	if c.Init || start.held(c) { // before what hides or replaces /dev, into which nothing of ours is put then
		ms = append(ms, specs.Mount{Destination: reaper.Path, Type: "bind", Source: cmp.Or(start.Init, "/usr/bin/oci-runtime"), Options: []string{"bind", "ro", "nosuid", "nodev"}})
	}
	if start.Notify != "" {
		ms = append(ms, own(notifySocket, start.Notify))
	}
	for _, v := range c.Volumes {
		m, err := volumeMount(c, p, v)
		if err != nil {
			return nil, err
		}
		ms = append(ms, m)
	}
	return ms, nil
}

// memory is what --ipc makes of /dev/shm and /dev/mqueue.
func memory(c *store.Container, shm, queue specs.Mount) (specs.Mount, specs.Mount) {
	switch c.IPC {
	case "host":
		for _, m := range []*specs.Mount{&shm, &queue} {
			m.Type, m.Source, m.Options = "bind", m.Destination, []string{"rbind", "nosuid", "noexec", "nodev"}
		}
	case "none":
		shm.Options = []string{"nosuid", "noexec", "nodev", "ro", "mode=0555", "size=4k"}
	}
	return shm, queue
}

func volumeMount(c *store.Container, p Place, v store.Volume) (specs.Mount, error) {
	m := specs.Mount{Destination: v.Target}
	switch v.Kind {
	case "":
		m.Type, m.Source, m.Options = "bind", v.Source, []string{"rbind"}
		if slices.Contains(v.Options, "bind") { // without what is mounted below
			m.Options = nil
		}
		if v.Name != "" && v.Source == "" {
			m.Source = p.Files // found at the start: until then any path stands for it
		}
		if !c.Privileged {
			m.Options = append(m.Options, "nodev")
		}
	case "tmpfs":
		m.Type, m.Source, m.Options = "tmpfs", "tmpfs", []string{"nosuid", "nodev", "noexec"}
	default:
		return m, fmt.Errorf("volume at %s: unknown kind %q", v.Target, v.Kind)
	}
	m.Options = append(m.Options, v.Options...)
	if v.ReadOnly {
		m.Options = append(m.Options, "ro")
		if v.Kind == "" {
			m.Options = append(m.Options, "rro")
		}
	}
	return m, nil
}

// devices are the machine's for a container; in a privileged one all that are there.
func devices(c *store.Container) ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	for _, d := range c.Devices {
		dev, err := device(d.Source, d.Target)
		if err != nil {
			return nil, err
		}
		out = append(out, dev)
	}
	if !c.Privileged {
		return out, nil
	}
	err := filepath.WalkDir("/dev", func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.IsDir() && slices.Contains([]string{"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/hugepages"}, name) {
			return filepath.SkipDir
		}
		if e.Type()&fs.ModeDevice == 0 || slices.Contains([]string{"console", "ptmx", "tty", "null", "zero", "full", "random", "urandom"}, path.Base(name)) && path.Dir(name) == "/dev" {
			return nil
		}
		if slices.ContainsFunc(out, func(d specs.LinuxDevice) bool { return d.Path == name }) {
			return nil
		}
		dev, err := device(name, name)
		if err == nil {
			out = append(out, dev)
		}
		return err
	})
	return out, err
}

func device(source, target string) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil {
		return specs.LinuxDevice{}, fmt.Errorf("device %s: %w", source, err)
	}
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
	if kind == "" {
		return specs.LinuxDevice{}, fmt.Errorf("device %s: it is none", source)
	}
	mode := os.FileMode(st.Mode & 0o777)
	return specs.LinuxDevice{Path: target, Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), FileMode: &mode, UID: &st.Uid, GID: &st.Gid}, nil
}

func rlimits(c *store.Container) (out []specs.POSIXRlimit) {
	for _, l := range c.Ulimits {
		out = append(out, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(l.Name), Soft: l.Soft, Hard: l.Hard})
	}
	return out
}
