package plan

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"
)

// Disk makes a disk's partition table be as described (package partition).
type Disk struct {
	base
	types.Disk
}

// Raid makes an array.
type Raid struct {
	base
	types.Raid
}

// Luks makes an encrypted volume and opens it.
type Luks struct {
	base
	types.Luks
	Lock *Lock // nil: a key, or the TPM by systemd's own token
}

// Filesystem makes a file system where there is none that fits.
type Filesystem struct {
	base
	types.Filesystem
}

// Mount mounts a file system while files are written.
type Mount struct {
	base
	Device, Format, Path string
	Options              []string
}

func (o Disk) String() string {
	words := []string{"partition disk " + o.Device}
	if util.IsTrue(o.WipeTable) {
		words = append(words, "wiping its table")
	}
	for _, p := range o.Partitions {
		words = append(words, describePartition(p))
	}
	return strings.Join(words, ", ")
}

func describePartition(p types.Partition) string {
	name := fmt.Sprintf("%d", p.Number)
	if p.Number == 0 {
		name = "next"
	}
	if p.Label != nil {
		name += fmt.Sprintf(" %q", *p.Label)
	}
	if util.IsFalse(p.ShouldExist) {
		return name + " not there"
	}
	for _, part := range []struct {
		word string
		mib  *int
	}{{"at", p.StartMiB}, {"of", p.SizeMiB}} {
		if part.mib != nil && *part.mib != 0 {
			name += fmt.Sprintf(" %s %d MiB", part.word, *part.mib)
		}
	}
	return name
}

func (o Raid) String() string {
	devices := make([]string, len(o.Devices))
	for n, d := range o.Devices {
		devices[n] = string(d)
	}
	return fmt.Sprintf("make array %s, %s of %s", o.Name, str(o.Level), strings.Join(devices, ", "))
}

func (o Luks) String() string {
	s := fmt.Sprintf("make encrypted volume %s on %s", o.Name, str(o.Luks.Device))
	switch {
	case o.Lock != nil:
		s += ", opened by " + o.Lock.Pin.String()
	case util.IsTrue(o.Clevis.Tpm2):
		s += ", opened by the TPM"
	}
	return s
}

func (o Filesystem) String() string {
	s := fmt.Sprintf("make file system %s on %s", *o.Format, o.Device)
	if *o.Format == "none" {
		s = "make sure that there is no file system on " + o.Device
	}
	if util.IsTrue(o.WipeFilesystem) {
		s += ", wiping it"
	}
	if util.NotEmpty(o.Path) && path.Clean(*o.Path) == StatePath {
		s += ", and have the machine's state there from its next start on"
	}
	return s
}

func (o Mount) String() string { return "mount " + o.Device + " on " + o.Path }

// Split parts operations on devices from those on files, which are done on the mounted file systems.
func Split(ops []Op) (devices, mounts, files []Op) {
	for _, op := range ops {
		switch op.(type) {
		case Arguments: // see ArgumentsOf
		case Disk, Raid, Luks, Filesystem:
			devices = append(devices, op)
		case Mount:
			mounts = append(mounts, op)
		default:
			files = append(files, op)
		}
	}
	return devices, mounts, files
}

// devices are done in upstream's order: what lies below comes first.
func (b *builder) devices() {
	st := b.m.Config.Storage
	for n, d := range st.Disks {
		b.checkDevice(b.at("storage.disks[%d].device", n), d.Device)
		b.add(Disk{b.at("storage.disks[%d].device", n), d})
	}
	for n, r := range st.Raid {
		at := b.at("storage.raid[%d].name", n)
		if strings.ContainsAny(r.Name, "/ \n\x00") {
			b.refuse(at, "invalid array name", "a name without slashes and spaces", fmt.Sprintf("%q", r.Name))
		}
		for k, d := range r.Devices {
			b.checkDevice(b.at("storage.raid[%d].devices[%d]", n, k), string(d))
		}
		b.add(Raid{at, r})
	}
	for n, l := range st.Luks {
		at := b.at("storage.luks[%d].name", n)
		if strings.ContainsAny(l.Name, "/ \t\n\x00") {
			b.refuse(at, "invalid volume name", "a name without slashes and spaces", fmt.Sprintf("%q", l.Name))
		}
		b.checkDevice(b.at("storage.luks[%d].device", n), str(l.Device))
		b.add(Luks{at, l, b.lock(n, l)})
	}
	var mounts []Op
	for n, f := range st.Filesystems {
		at := b.at("storage.filesystems[%d].device", n)
		b.checkDevice(at, f.Device)
		if f.Format != nil && *f.Format != "" {
			b.add(Filesystem{at, f})
		}
		if str(f.Format) == "swap" && len(f.Options) > 0 { // there is no mkswap(8) that would know it
			b.refuse(b.at("storage.filesystems[%d].options", n), "unknown option of swap", "none", fmt.Sprintf("%q", f.Options[0]))
		}
		if util.NotEmpty(f.Path) && path.Clean(*f.Path) == StatePath {
			b.checkState(n, f)
			continue
		}
		if util.NotEmpty(f.Path) && str(f.Format) != "swap" && str(f.Format) != "none" {
			mounts = append(mounts, b.mount(n, f))
		}
	}
	sort.SliceStable(mounts, func(i, j int) bool { return depth(mounts[i].(Mount).Path) < depth(mounts[j].(Mount).Path) })
	b.ops = append(b.ops, mounts...)
}

func (b *builder) mount(n int, f types.Filesystem) Op {
	at := b.at("storage.filesystems[%d].path", n)
	switch p := path.Clean(*f.Path); {
	case p == "/", p == "/etc", p == "/usr", hidesState(p):
		b.refuse(at, "cannot put a file system there", "a path below /var, such as /var/lib/containers", p)
	}
	m := Mount{base: at, Device: f.Device, Format: str(f.Format), Path: *f.Path}
	for _, o := range f.MountOptions {
		m.Options = append(m.Options, string(o))
	}
	return m
}

// hidesState reports whether a file system at p would hold what the initramfs looks for in the machine's state.
func hidesState(p string) bool {
	return slices.ContainsFunc([]string{"/var/lib/etc", "/var/lib/ignition", "/var/lib/proa"}, func(dir string) bool {
		return strings.HasPrefix(dir+"/", p+"/") || strings.HasPrefix(p, dir+"/")
	})
}

// StatePath is where a machine's state is. A file system of the config there is no mount like others: everything is written to the state
// that the machine has, copied in the end, and from the next boot on the initramfs mounts the copy.
const StatePath = "/var"

// StateDevice is the device that a config puts state on, "" if it leaves state where it is.
func StateDevice(c types.Config) string {
	for _, f := range c.Storage.Filesystems {
		if util.NotEmpty(f.Path) && path.Clean(*f.Path) == StatePath {
			return f.Device
		}
	}
	return ""
}

// checkState refuses what the initramfs cannot mount, or mounts in another way.
func (b *builder) checkState(n int, f types.Filesystem) {
	if str(f.Format) != "ext4" {
		b.refuse(b.at("storage.filesystems[%d].format", n), "cannot put this file system at /var", "ext4", fmt.Sprintf("%q", str(f.Format)))
	}
	if len(f.MountOptions) > 0 {
		b.refuse(b.at("storage.filesystems[%d].mountOptions", n), "cannot mount /var with options", "none: it is mounted with nosuid and nodev", string(f.MountOptions[0]))
	}
	for k, u := range b.m.Config.Systemd.Units {
		if u.Name == "var.mount" {
			b.refuse(b.at("systemd.units[%d].name", k), "cannot mount /var by a unit", "no unit var.mount, and no with_mount_unit: it is mounted before systemd starts", "one")
		}
	}
}

func (b *builder) checkDevice(at base, name string) {
	if !strings.HasPrefix(path.Clean(name), "/dev/") || strings.ContainsAny(name, "\n\x00") {
		b.refuse(at, "invalid device", "a path below /dev", fmt.Sprintf("%q", name))
	}
}
