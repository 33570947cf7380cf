package kerneltest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ulikunitz/xz"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/internal/verity"
)

const (
	mib      = 1 << 20
	slotSize = 32 * mib
	shipped  = (1 + 4 + 1 + 2*32 + 1) * mib // of the disk image before its first boot
	diskSize = shipped + 256*mib
)

// A world is everything a boot needs, made once.
type world struct {
	tools          *tooltree.Tree
	dir            string
	kernel, initrd string
	image          string // the shipped disk image, as large as the disk
	table          *gpt.Table
	root           digest.SHA256
	hashOffset     int64
	blob           int64 // where the blob's bytes are in the root image
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("boots kernels")
	}
	w := &world{tools: testenv.Tools(t), dir: t.TempDir()}
	kernelDir := w.tools.Dir()
	kernels, _ := filepath.Glob(filepath.Join(kernelDir, "boot/vmlinuz-*"))
	if len(kernels) == 0 {
		t.Fatalf("no kernel in the tools tree %s: run image-builder tools", kernelDir)
	}
	w.kernel = kernels[0]
	w.makeInitrd(t, kernelDir)
	w.makeImage(t)
	return w
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// build makes a static program of this module.
func (w *world) build(t *testing.T, pkg string) []byte {
	t.Helper()
	out := filepath.Join(w.dir, filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, msg)
	}
	b, err := os.ReadFile(out)
	check(t, err)
	return b
}

func (w *world) makeInitrd(t *testing.T, kernelDir string) {
	files := map[string][]byte{"init": w.build(t, "github.com/proa-os/proa/init/cmd/init")}
	var list bytes.Buffer
	for _, m := range modules(t, kernelDir, "virtio_blk", "dm-verity", "crc32c_generic", "erofs", "overlay", "ext4") {
		name := "lib/modules/" + m.name + ".ko"
		if m.name == "virtio_blk" { // as a driver found by its device, and as Debian compressed it
			files[name+".xz"] = m.packed
			files["etc/proa/drivers"] = fmt.Appendf(nil, "/%s.xz virtio:d00000002v*\n", name)
			continue
		}
		files[name] = m.content
		fmt.Fprintf(&list, "/%s\n", name)
	}
	files["etc/proa/modules"] = list.Bytes()
	files["etc/proa/root-modules"] = nil // the root image of these tests has no modules
	w.initrd = filepath.Join(w.dir, "initrd")
	check(t, os.WriteFile(w.initrd, newc(files), 0o600))
}

type module struct {
	name            string
	content, packed []byte // as .ko and as .ko.xz
}

// modules returns the named modules behind those they need, by the "depends" in their own .modinfo.
func modules(t *testing.T, kernelDir string, names ...string) []module {
	t.Helper()
	normal := strings.NewReplacer("-", "_")
	files := map[string]string{}
	check(t, filepath.WalkDir(filepath.Join(kernelDir, "usr/lib/modules"), func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko.xz"); ok {
			files[normal.Replace(name)] = path
		}
		return err
	}))
	var list []module
	done := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		path, ok := files[normal.Replace(name)]
		if done[name] || !ok { // not ok: built in
			return
		}
		done[name] = true
		packed, err := os.ReadFile(path)
		check(t, err)
		r, err := xz.NewReader(bytes.NewReader(packed))
		check(t, err)
		content, err := io.ReadAll(r)
		check(t, err)
		if _, rest, ok := bytes.Cut(content, []byte("\x00depends=")); ok {
			needs, _, _ := bytes.Cut(rest, []byte{0})
			for need := range strings.SplitSeq(string(needs), ",") {
				add(need)
			}
		}
		list = append(list, module{normal.Replace(name), content, packed})
	}
	for _, name := range names {
		add(name)
	}
	return list
}

// newc is a cpio archive of regular files and their directories (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
func newc(files map[string][]byte) []byte {
	var b bytes.Buffer
	entry := func(name string, mode, major, minor int, content []byte) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			b.Len(), mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name)+1, 0, name)
		b.Write(make([]byte, -b.Len()&3))
		b.Write(content)
		b.Write(make([]byte, -b.Len()&3))
	}
	dirs := map[string]bool{}
	names := []string{}
	for name := range files {
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
		names = append(names, name)
	}
	dirs["dev"] = true
	for _, dir := range slices.Sorted(func(yield func(string) bool) {
		for dir := range dirs {
			if !yield(dir) {
				return
			}
		}
	}) {
		entry(dir, 0o40755, 0, 0, nil)
	}
	entry("dev/console", 0o20600, 5, 1, nil)
	slices.Sort(names)
	for _, name := range names {
		entry(name, 0o100755, 0, 0, files[name])
	}
	entry("TRAILER!!!", 0, 0, 0, nil)
	return b.Bytes()
}

// makeImage makes the shipped disk: a root image in root-a, nothing in root-b.
func (w *world) makeImage(t *testing.T) {
	root := filepath.Join(w.dir, "root")
	for _, dir := range []string{"dev", "proc", "sys", "run", "etc", "var", "usr/lib/systemd", "usr/share", "usr/sbin", "usr/lib/x86_64-linux-gnu", "usr/lib64"} {
		check(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	check(t, os.Symlink("usr/lib", filepath.Join(root, "lib")))
	check(t, os.Symlink("usr/lib64", filepath.Join(root, "lib64")))
	blob := bytes.Repeat([]byte("proa kernel test blob\n"), 20000)
	check(t, os.WriteFile(filepath.Join(root, "usr/share/blob"), blob, 0o644))
	check(t, os.WriteFile(filepath.Join(root, "usr/lib/systemd/systemd"), w.build(t, "github.com/proa-os/proa/init/kerneltest/guest"), 0o755))
	for _, name := range []string{
		"usr/sbin/mke2fs", "usr/sbin/e2fsck", "etc/mke2fs.conf", "usr/lib64/ld-linux-x86-64.so.2",
		"usr/lib/x86_64-linux-gnu/libext2fs.so.2", "usr/lib/x86_64-linux-gnu/libcom_err.so.2", "usr/lib/x86_64-linux-gnu/libblkid.so.1",
		"usr/lib/x86_64-linux-gnu/libuuid.so.1", "usr/lib/x86_64-linux-gnu/libe2p.so.2", "usr/lib/x86_64-linux-gnu/libc.so.6",
	} {
		b, err := os.ReadFile(w.tools.Path(name))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(root, name), b, 0o755))
	}
	erofs := filepath.Join(w.dir, "root.erofs")
	if out, err := w.tools.Command(t.Context(), "mkfs.erofs", "-T0", "--all-root", erofs, root).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v\n%s", err, out)
	}
	data, err := os.ReadFile(erofs)
	check(t, err)
	data = append(data, make([]byte, -len(data)&(verity.BlockSize-1))...)
	w.hashOffset = int64(len(data))
	w.blob = int64(bytes.Index(data, blob[:4096]))
	if w.blob < 0 {
		t.Fatal("the blob is not in the root image as it is")
	}

	w.image = filepath.Join(w.dir, "disk.img")
	f, err := os.Create(w.image)
	check(t, err)
	defer f.Close()
	check(t, f.Truncate(diskSize))
	w.table = &gpt.Table{DiskGUID: gpt.NewGUID([16]byte{1}), SectorSize: 512, Sectors: shipped / 512}
	for i, p := range []struct {
		name string
		typ  gpt.GUID
		size int64
	}{{disk.NameESP, gpt.TypeESP, 4 * mib}, {"bios", gpt.TypeBIOSBoot, mib}, {disk.NameRootA, gpt.TypeRootAMD64, slotSize}, {disk.NameRootB, gpt.TypeRootAMD64, slotSize}} {
		_, err := w.table.Add(gpt.Partition{Name: p.name, TypeGUID: p.typ, GUID: gpt.NewGUID([16]byte{2, byte(i)})}, p.size)
		check(t, err)
	}
	check(t, w.table.WriteBoth(f))
	tree := io.NewOffsetWriter(f, w.offset(disk.NameRootA)+w.hashOffset)
	w.root, _, err = verity.Build(bytes.NewReader(data), w.hashOffset, [32]byte{3}, [16]byte{4}, tree)
	check(t, err)
	_, err = f.WriteAt(data, w.offset(disk.NameRootA))
	check(t, err)
}

func (w *world) offset(partition string) int64 {
	p, err := w.table.Find(partition)
	if err != nil {
		panic(err)
	}
	return w.table.Offset(p)
}

// disk returns a copy of the shipped disk, which change may edit, with size bytes.
func (w *world) disk(t *testing.T, size int64, change func(f *os.File)) string {
	t.Helper()
	src, err := os.Open(w.image)
	check(t, err)
	defer src.Close()
	file := filepath.Join(t.TempDir(), "disk.img")
	dst, err := os.Create(file)
	check(t, err)
	defer dst.Close()
	_, err = io.Copy(dst, io.LimitReader(src, shipped))
	check(t, err)
	check(t, dst.Truncate(size))
	if change != nil {
		change(dst)
	}
	return file
}

// A run is one life of the machine.
type run struct {
	disk    string
	options string            // more on the kernel command line
	root    string            // root hash, if not the right one
	drive   string            // more options for QEMU's -drive
	sector  int               // bytes of the disk's sectors, 512 if zero
	until   func(string) bool // cuts the power as soon as it returns true for the console so far; asked all the time
}

// boot runs the machine until it turns off, restarts, or loses power, and returns its console.
func (w *world) boot(t *testing.T, r run) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if r.root == "" {
		r.root = w.root.String()
	}
	device := "virtio-blk-pci,drive=d"
	if r.sector != 0 {
		device += fmt.Sprintf(",logical_block_size=%d,physical_block_size=%d", r.sector, r.sector)
	}
	line := fmt.Sprintf("proa.roothash=%s proa.hashoffset=%d console=ttyS0 panic=-1 no_timer_check %s", r.root, w.hashOffset, r.options)
	cmd := w.tools.Command(ctx, "qemu-system-x86_64",
		"-L", w.tools.Path("usr/share/qemu"), "-L", w.tools.Path("usr/share/seabios"),
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-machine", "q35,accel=tcg", "-cpu", "max,-cx16", "-smp", "2", "-m", "512",
		"-kernel", w.kernel, "-initrd", w.initrd, "-append", line,
		"-drive", "if=none,id=d,format=raw,file="+r.disk+r.drive, "-device", device,
		"-device", "virtio-rng-pci")
	console := &console{}
	cmd.Stdout, cmd.Stderr = console, console
	check(t, cmd.Start())
	start := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var err error
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-tick.C:
			if r.until != nil && r.until(console.String()) {
				check(t, cmd.Process.Kill())
				r.until = nil
			}
		}
	}
	text := strings.ReplaceAll(console.String(), "\r", "")
	t.Logf("%d bytes of console in %v, %v", len(text), time.Since(start).Round(time.Millisecond), err)
	if os.Getenv("PROA_TEST_CONSOLE") != "" {
		t.Log(text)
	}
	if ctx.Err() != nil {
		t.Fatalf("the machine did not end:\n%s", text)
	}
	return text
}

// A console is written by one process and read at the same time.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// expect fails unless all texts are in the console, in this order.
func expect(t *testing.T, console string, texts ...string) {
	t.Helper()
	rest := console
	for _, want := range texts {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Fatalf("%q is missing in its place on the console:\n%s", want, console)
		}
		rest = after
	}
}
