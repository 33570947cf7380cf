package dmverity

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/guesttest"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/verity"
)

func TestMain(m *testing.M) { guesttest.Main(m) }

const blocks = 700 // of data: more than one block of hashes, so the tree has two levels

var salt = [32]byte{5: 17}

// content is the same at every call.
func content() []byte {
	b := make([]byte, blocks*verity.BlockSize)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// slot makes a disk with content and its tree, in which change may flip bits, and returns its root hash.
func slot(t *testing.T, change func(b []byte)) (guesttest.Disk, digest.SHA256) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "slot")
	data := content()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	root, _, err := verity.Build(bytes.NewReader(data), int64(len(data)), salt, [16]byte{2}, io.NewOffsetWriter(f, int64(len(data))))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		change(b)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return guesttest.Disk{File: file}, root
}

// machine starts the calling test in a guest that knows the root hash.
func machine(d guesttest.Disk, root digest.SHA256, panics string) guesttest.Machine {
	return guesttest.Machine{
		Modules: []string{"virtio_blk", "dm-verity"}, Disks: []guesttest.Disk{d},
		Env: map[string]string{"ROOT_HASH": root.String()}, Panic: panics,
	}
}

// inGuest is the target for /dev/vda and the root hash that the host gave.
func inGuest(t *testing.T) Target {
	t.Helper()
	root, err := digest.Parse(os.Getenv("ROOT_HASH"))
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/dev/vda", &st); err != nil {
		t.Fatal(err)
	}
	return Target{Device: fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), DataBlocks: blocks, RootHash: root, Salt: salt}
}

func activate(t *testing.T) *os.File {
	t.Helper()
	node, err := Activate("slot", inGuest(t))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestKernelReadsThroughVerity(t *testing.T) {
	if !guesttest.Inside() {
		disk, root := slot(t, nil)
		guesttest.Run(t, machine(disk, root, ""))
		return
	}
	f := activate(t)
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, content()) {
		t.Errorf("read %d bytes, %v, want the %d of the slot and no tree", len(got), err, blocks*verity.BlockSize)
	}
	if w, err := os.OpenFile(f.Name(), os.O_WRONLY, 0); err == nil {
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("the device can be written to")
		}
		w.Close()
	}
	dm := "/sys/block/" + filepath.Base(f.Name()) + "/dm/"
	for file, want := range map[string]string{"name": "slot", "uuid": UUID(inGuest(t).RootHash)} {
		if b, err := os.ReadFile(dm + file); err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s: got %q, %v, want %q", file, b, err, want)
		}
	}
}

// TestKernelRefusesTables gives tables that cannot be: the error says which, and no device stays behind.
func TestKernelRefusesTables(t *testing.T) {
	if !guesttest.Inside() {
		disk, root := slot(t, nil)
		guesttest.Run(t, machine(disk, root, ""))
		return
	}
	good := inGuest(t)
	missing, long := good, good
	missing.Device = "250:99"
	long.DataBlocks = 1 << 30
	for _, bad := range []Target{missing, long} {
		if node, err := Activate("slot", bad); err == nil || !strings.Contains(err.Error(), "load table") || !strings.Contains(err.Error(), bad.Device) {
			t.Errorf("%+v: got %q, %v", bad, node, err)
		}
	}
	if left, _ := filepath.Glob("/sys/block/dm-*"); len(left) > 0 {
		t.Errorf("got %q left behind", left)
	}
	if _, err := Activate("slot", good); err != nil {
		t.Error(err)
	}
	if _, err := Activate("slot", good); err == nil || !strings.Contains(err.Error(), "create device slot") {
		t.Errorf("twice: got %v", err)
	}
}

// refused reads a good block, and then one that must not come back.
func refused(t *testing.T, good, bad int64) {
	f := activate(t)
	b := make([]byte, verity.BlockSize)
	if good >= 0 {
		if _, err := f.ReadAt(b, good*verity.BlockSize); err != nil || !bytes.Equal(b, content()[good*verity.BlockSize:][:verity.BlockSize]) {
			t.Errorf("block %d, which is good: %v", good, err)
		}
	}
	fmt.Println("guest: reading the bad block")
	n, err := f.ReadAt(b, bad*verity.BlockSize)
	t.Errorf("block %d, which is bad: got %d bytes, %v", bad, n, err)
}

const corrupted = "dm-verity device corrupted"

func TestKernelRefusesFlippedData(t *testing.T) {
	if guesttest.Inside() {
		refused(t, 3, 600)
		return
	}
	disk, root := slot(t, func(b []byte) { b[600*verity.BlockSize+4095] ^= 0x80 })
	if console := guesttest.Run(t, machine(disk, root, corrupted)); !strings.Contains(console, "data block 600 is corrupted") {
		t.Errorf("the kernel does not name the block:\n%s", console)
	}
}

func TestKernelRefusesFlippedTree(t *testing.T) {
	if guesttest.Inside() {
		refused(t, 3, 600)
		return
	}
	testenv.Machines(t)
	// Behind the data: superblock, the top block, six blocks of hashes for 128 data blocks each.
	const leaf = blocks + 1 + 1 + 600/128
	disk, root := slot(t, func(b []byte) { b[leaf*verity.BlockSize+32*(600%128)] ^= 1 })
	if console := guesttest.Run(t, machine(disk, root, corrupted)); !strings.Contains(console, fmt.Sprintf("metadata block %d is corrupted", leaf)) {
		t.Errorf("the kernel does not name the block:\n%s", console)
	}
}

func TestKernelRefusesWrongRootHash(t *testing.T) {
	if guesttest.Inside() {
		refused(t, -1, 0)
		return
	}
	disk, root := slot(t, nil)
	root[0] ^= 1
	guesttest.Run(t, machine(disk, root, corrupted))
}
