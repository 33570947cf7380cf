package kerneltest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/guesttest"
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
	tools      *tooltree.Tree
	dir        string
	initrd     string
	image      string // the shipped disk image, as large as the disk
	table      *gpt.Table
	root       digest.SHA256
	hashOffset int64
	blob       int64 // where the blob's bytes are in the root image
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{tools: testenv.Machines(t), dir: t.TempDir()}
	w.makeInitrd(t)
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

func (w *world) makeInitrd(t *testing.T) {
	files := map[string][]byte{"init": w.build(t, "github.com/proa-os/proa/init/cmd/init")}
	modules, err := guesttest.Modules(w.tools, "virtio_blk", "dm-verity", "crc32c_generic", "erofs", "overlay", "ext4")
	check(t, err)
	var list bytes.Buffer
	for _, m := range modules {
		name := "lib/modules/" + m.Name + ".ko"
		if m.Name == "virtio_blk" { // as a driver found by its device, and as Debian compressed it
			packed, err := os.ReadFile(m.File)
			check(t, err)
			files[name+".xz"] = packed
			files["etc/proa/drivers"] = fmt.Appendf(nil, "/%s.xz virtio:d00000002v*\n", name)
			continue
		}
		files[name] = m.Content
		fmt.Fprintf(&list, "/%s\n", name)
	}
	files["etc/proa/modules"] = list.Bytes()
	files["etc/proa/root-modules"] = nil // the root image of these tests has no modules
	w.initrd = filepath.Join(w.dir, "initrd")
	check(t, os.WriteFile(w.initrd, guesttest.Archive(files), 0o600))
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
	if r.root == "" {
		r.root = w.root.String()
	}
	start := time.Now()
	text, err := guesttest.Boot{
		Initrd: w.initrd, Disks: []guesttest.Disk{{File: r.disk, Options: r.drive, SectorSize: r.sector}}, Until: r.until,
		Options: fmt.Sprintf("proa.roothash=%s proa.hashoffset=%d %s", r.root, w.hashOffset, r.options),
	}.Run(t.Context(), w.tools)
	t.Logf("%d bytes of console in %v", len(text), time.Since(start).Round(time.Millisecond))
	if os.Getenv("PROA_TEST_CONSOLE") != "" {
		t.Log(text)
	}
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return text
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
