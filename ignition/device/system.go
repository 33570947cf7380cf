package device

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/internal/blockdev"
	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
)

// System is this machine.
type System struct {
	Root    string        // of the tree that files go to
	Timeout time.Duration // how long a device may take to appear
	Sys     string        // where the kernel tells of its devices; "" is /sys
	Dev     string        // where their nodes are; "" is /dev
}

const sysBlock = "/sys/class/block"

// Open waits for a device and opens it. Where udev runs, it has the kernel read a table again that somebody has written: for a moment
// all partitions of that disk are gone.
func (s System) Open(ctx context.Context, name string) (Device, error) {
	for again := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		path, err := s.find(ctx, name)
		if err != nil {
			return nil, err
		}
		d, err := openNode(path)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENXIO) || time.Now().After(again) {
			return d, err
		}
	}
}

// find waits for the node of a device.
func (s System) find(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	known := links{sys: os.DirFS(cmp.Or(s.Sys, "/sys")), dev: cmp.Or(s.Dev, "/dev")}
	asked := false
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		path, err := known.resolve(name)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
		if strings.HasPrefix(name, "/dev/disk/") && !asked && wait > 500*time.Millisecond {
			// Names that only udev's rules make. Without it there may be none: the timeout says so.
			asked = true
			_ = s.Run(ctx, nil, "systemctl", "start", "systemd-udevd.service", "systemd-udev-trigger.service")
		}
		select {
		case <-ctx.Done():
			return "", problem("no such device", "a block device called "+name, "none within "+s.Timeout.String(), "correct the name, or attach the disk")
		case <-time.After(wait):
		}
	}
}

// Run runs a program of the image. What it says is part of the error.
func (s System) Run(ctx context.Context, input []byte, program string, args ...string) error {
	path, err := lookProgram(program)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	// mdadm would wait for links that udev makes; here it makes them itself.
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "LC_ALL=C", "MDADM_NO_UDEV=1"}
	cmd.Stdin = strings.NewReader(string(input))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %.400s", program, err, strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}

func lookProgram(program string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/lib/systemd"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
			return filepath.Join(dir, program), nil
		}
	}
	return "", problem("the image has no "+program, "a config that needs only what the image has", "one that needs "+program, "remove that part of the config")
}

// Mount makes the directory and mounts.
func (s System) Mount(ctx context.Context, m plan.Mount, format, device string) error {
	target := filepath.Join(s.Root, m.Path)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	args := []string{"-t", format}
	if len(m.Options) > 0 {
		args = append(args, "-o", strings.Join(m.Options, ","))
	}
	return s.Run(ctx, nil, "mount", append(args, device, target)...)
}

// Unmount unmounts; what is not mounted is no error.
func (s System) Unmount(path string) error {
	err := unix.Unmount(filepath.Join(s.Root, path), 0)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

// UUID makes one of version 4 (RFC 9562).
func (s System) UUID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// node is a device of the kernel.
type node struct {
	*blockdev.Disk
	path   string
	block  string // /sys/class/block
	name   string // the kernel's, there
	size   int64
	sector int
}

func openNode(path string) (Device, error) {
	d, err := blockdev.Open(path)
	if err != nil {
		return nil, err
	}
	n := &node{Disk: d, path: path, block: sysBlock}
	n.size, err = d.Seek(0, io.SeekEnd)
	if err == nil {
		n.sector, err = unix.IoctlGetInt(int(d.Fd()), unix.BLKSSZGET)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(d.Fd()), &st)
	}
	if err == nil {
		var target string
		target, err = os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))))
		n.name = filepath.Base(target)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at %s: %w", path, err), d.Close())
	}
	return n, nil
}

func (n *node) Path() string    { return n.path }
func (n *node) Size() int64     { return n.size }
func (n *node) SectorSize() int { return n.sector }

// ID is what the kernel has of serial numbers: of virtio disks, of NVMe, of SCSI and ATA.
func (n *node) ID() string {
	for _, file := range []string{"serial", "wwid", "device/wwid"} {
		if b, err := os.ReadFile(filepath.Join(n.block, n.name, file)); err == nil && len(bytes.TrimSpace(b)) > 0 {
			return string(bytes.TrimSpace(b))
		}
	}
	return ""
}

// kernelPartition is what the kernel knows of a partition, in bytes.
type kernelPartition struct {
	name        string
	start, size int64
}

func (n *node) partitions() (map[int]kernelPartition, error) {
	entries, err := os.ReadDir(filepath.Join(n.block, n.name))
	if err != nil {
		return nil, err
	}
	found := map[int]kernelPartition{}
	for _, e := range entries {
		dir := filepath.Join(n.block, n.name, e.Name())
		number, err := readInt(dir + "/partition")
		if err != nil {
			continue // no partition, or gone
		}
		start, err1 := readInt(dir + "/start")
		size, err2 := readInt(dir + "/size")
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		found[int(number)] = kernelPartition{e.Name(), start * 512, size * 512}
	}
	return found, nil
}

func readInt(name string) (int64, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// Busy looks at a partition, or at the device and its partitions.
func (n *node) Busy(partition int) (string, error) {
	parts, err := n.partitions()
	if err != nil {
		return "", err
	}
	if partition != 0 {
		p, ok := parts[partition]
		if !ok {
			return "", nil
		}
		return n.busy(p.name)
	}
	for _, p := range parts {
		if by, err := n.busy(p.name); by != "" || err != nil {
			return "partition " + p.name + ", " + by, err
		}
	}
	return n.busy(n.name)
}

// busy looks for holders, mounts and swap; and whether the kernel has the device for something else: another member of a file system, or a mount
// that only a container sees.
func (n *node) busy(name string) (string, error) {
	holders, err := os.ReadDir(filepath.Join(n.block, name, "holders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, h := range holders {
		if b, err := os.ReadFile(filepath.Join(n.block, h.Name(), "dm/name")); err == nil {
			return "volume " + strings.TrimSpace(string(b)), nil
		}
		return "array " + h.Name(), nil
	}
	number, err := os.ReadFile(filepath.Join(n.block, name, "dev"))
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	node := filepath.Join("/dev", strings.ReplaceAll(name, "!", "/"))
	if where := mountedOn(string(mounts), strings.TrimSpace(string(number)), node); where != "" {
		return "mounted on " + where, nil
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for line := range strings.Lines(string(swaps)) {
		if f := strings.Fields(line); len(f) > 0 && filepath.Base(f[0]) == name {
			return "swap", nil
		}
	}
	// A device that somebody has for himself is nobody else's (open(2), O_EXCL). Other errors are for those who write to it.
	fd, err := unix.Open(node, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return "the kernel has it", nil
	}
	if err == nil {
		return "", unix.Close(fd)
	}
	return "", nil
}

// mountedOn looks for a device, by number and node, in mountinfo (proc_pid_mountinfo(5)): file systems that can have several devices, btrfs,
// have a number of their own there. What is after a space or a line break in a name is escaped.
func mountedOn(mountinfo, number, node string) string {
	for line := range strings.Lines(mountinfo) {
		mount, rest, _ := strings.Cut(line, " - ")
		f, source := strings.Fields(mount), strings.Fields(rest)
		if len(f) < 5 || len(source) < 2 || f[2] != number && !sameNode(source[1], node) {
			continue
		}
		return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4])
	}
	return ""
}

// sameNode reports whether the source of a mount is a device; the kernel has the name by which it was mounted.
func sameNode(source, node string) bool {
	if source == node || !strings.HasPrefix(source, "/dev/") {
		return source == node
	}
	to, err := filepath.EvalSymlinks(source)
	return err == nil && to == node
}

// Own finds the disk that the running root image is on. What Proa needs there are the partitions with its names (package disk).
func (n *node) Own(partition int) (bool, error) {
	device, err := disk.Root()
	if err != nil {
		return false, err
	}
	scanner := disk.System()
	root, offset, err := scanner.Running(device)
	if err != nil {
		return false, err
	}
	layout, err := scanner.Find(root, offset)
	var stale *disk.StaleError
	if errors.As(err, &stale) {
		layout, err = stale.Layout, nil
	}
	if err != nil {
		return false, err
	}
	mine := map[string]bool{"": true, disk.NameESP: true, disk.NameRootA: true, disk.NameRootB: true, disk.NameState: true, "bios": true}
	if n.name == layout.Disk.Name && partition == 0 {
		return true, nil
	}
	for _, p := range layout.Disk.Table.Partitions {
		node, err := scanner.Node(layout.Disk.Name, p.Number)
		if err != nil {
			continue // the kernel does not know it, so nobody uses it
		}
		if mine[p.Name] && (n.name == layout.Disk.Name && partition == p.Number || n.path == node || n.name == filepath.Base(node)) {
			return true, nil
		}
	}
	return false, nil
}

// Follow tells the kernel what has changed, one partition at a time: others may be in use (BLKPG).
func (n *node) Follow(t *gpt.Table) error {
	known, err := n.partitions()
	if err != nil {
		return err
	}
	wanted := map[int]kernelPartition{}
	if t != nil {
		for _, p := range t.Partitions {
			wanted[p.Number] = kernelPartition{"", t.Offset(p), t.Size(p)}
		}
	}
	var grown []int
	for number, k := range known {
		w, ok := wanted[number]
		switch {
		case ok && w.start == k.start && w.size == k.size:
			delete(wanted, number)
		case ok && w.start == k.start:
			grown = append(grown, number)
		default:
			if err := n.RemovePartition(number); err != nil {
				return err
			}
		}
	}
	for _, number := range grown { // there is room only when others are gone
		if err := n.ResizePartition(number, wanted[number].start, wanted[number].size); err != nil {
			return err
		}
		delete(wanted, number)
	}
	for number, w := range wanted {
		if err := n.AddPartition(number, w.start, w.size); err != nil {
			return err
		}
	}
	return nil
}
