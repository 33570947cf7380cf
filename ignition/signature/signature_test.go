package signature

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

const (
	mib = 1 << 20
	id  = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"
)

func newFile(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "device"))
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Every program that makes something writes a device, and Probe must see what it was told to make, and nothing after Erase.
func TestProbeForeign(t *testing.T) {
	tools := testenv.Tools(t)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		want string
		size int64
		argv []string
	}{
		{`ext4 "data" with UUID ` + id, 16 * mib, []string{"mkfs.ext4", "-q", "-F", "-L", "data", "-U", id}},
		{`ext3 "data" with UUID ` + id, 16 * mib, []string{"mkfs.ext3", "-q", "-F", "-L", "data", "-U", id}},
		{`ext2 "data" with UUID ` + id, 16 * mib, []string{"mkfs.ext2", "-q", "-F", "-L", "data", "-U", id}},
		{`xfs "data" with UUID ` + id, 320 * mib, []string{"mkfs.xfs", "-q", "-f", "-L", "data", "-m", "uuid=" + id}},
		{`btrfs "data" with UUID ` + id, 128 * mib, []string{"mkfs.btrfs", "-q", "-f", "-L", "data", "-U", id}},
		{`vfat "DATA" with UUID 0F1E-2D3C`, 64 * mib, []string{"mkfs.fat", "-F", "32", "-n", "DATA", "-i", "0F1E2D3C"}},
		{`vfat with UUID 0F1E-2D3C`, 16 * mib, []string{"mkfs.fat", "-F", "16", "-i", "0F1E2D3C"}},
		{`luks2 "data" with UUID ` + id, 32 * mib, []string{"cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
			"--label", "data", "--uuid", id, "--key-file", key}},
		{`luks1 with UUID ` + id, 32 * mib, []string{"cryptsetup", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", "--uuid", id, "--key-file", key}},
		{`gpt`, 16 * mib, []string{"sgdisk", "--new=1:0:0"}},
	}
	for _, tt := range tests {
		t.Run(tt.argv[0]+" "+tt.want, func(t *testing.T) {
			f := newFile(t, tt.size)
			if out, err := tools.Command(t.Context(), tt.argv[0], append(tt.argv[1:], f.Name())...).CombinedOutput(); err != nil {
				testenv.Missing(t, "by %s: %v: %s", tt.argv[0], err, out)
			}
			probe(t, f, tt.size, tt.want)
			if err := Erase(f, tt.size); err != nil {
				t.Fatal(err)
			}
			probe(t, f, tt.size, "")
		})
	}
}

func probe(t *testing.T, f *os.File, size int64, want string) {
	t.Helper()
	found, err := Probe(f, size)
	var all []string
	for _, s := range found {
		all = append(all, s.String())
	}
	if got := strings.Join(all, ", "); err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// Ours is, byte for byte, what busybox makes.
func TestSwap(t *testing.T) {
	tools := testenv.Tools(t)
	const size = 4*mib + 1000
	ours, theirs := newFile(t, size), newFile(t, size)
	if err := FormatSwap(ours, size, 4096, "pages", id); err != nil {
		t.Fatal(err)
	}
	probe(t, ours, size, `swap "pages" with UUID `+id)
	if out, err := tools.Command(t.Context(), "busybox", "mkswap", "-L", "pages", theirs.Name()).CombinedOutput(); err != nil {
		t.Fatalf("busybox mkswap: %v\n%s", err, out)
	}
	a, b := make([]byte, 4096), make([]byte, 4096)
	for f, b := range map[*os.File][]byte{ours: a, theirs: b} {
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		clear(b[swapUUID:swapLabel]) // busybox's is random
	}
	if !bytes.Equal(a, b) {
		t.Errorf("ours differs from busybox's:\n%x\n%x", a[1024:1100], b[1024:1100])
	}
	for _, bad := range []error{FormatSwap(ours, size, 4096, "0123456789abcdef", id), FormatSwap(ours, size, 4096, "", "x"), FormatSwap(ours, 4096, 4096, "", id)} {
		if bad == nil {
			t.Error("accepted what it must refuse")
		}
	}
}

// md's superblocks, where mdadm --create puts them; mdadm itself needs a kernel with md.
func TestRaid(t *testing.T) {
	for name, at := range map[string]int64{"1.2": 4096, "1.1": 0, "1.0": 16*mib - 8192, "0.90": 16*mib - 65536} {
		f := newFile(t, 16*mib)
		sb := make([]byte, 64)
		copy(sb, "\xfc\x4e\x2b\xa9\x01")
		copy(sb[16:], "0123456789abcdef")
		copy(sb[32:], "any:data")
		want := fmt.Sprintf("linux_raid_member %q with UUID 30313233-3435-3637-3839-616263646566", "any:data")
		if name == "0.90" {
			sb[4], want = 0, "linux_raid_member"
		}
		if _, err := f.WriteAt(sb, at); err != nil {
			t.Fatal(err)
		}
		probe(t, f, 16*mib, want)
	}
}

func TestSmallAndEmpty(t *testing.T) {
	for _, size := range []int64{0, 1, 512, 4096, 100_000} {
		f := newFile(t, size)
		probe(t, f, size, "")
		if err := Erase(f, size); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	mbr := make([]byte, 512)
	mbr[450], mbr[454], mbr[458], mbr[510], mbr[511] = 0x83, 1, 1, 0x55, 0xaa
	f := newFile(t, mib)
	if _, err := f.WriteAt(mbr, 0); err != nil {
		t.Fatal(err)
	}
	probe(t, f, mib, "dos")
}

// What others make is seen where util-linux's libblkid sees it, and Erase reaches all of it. A stale one does not make a file system two things.
func TestStrange(t *testing.T) {
	const size = 4*mib + 1536
	last := int64(4 * mib) // of the labels of ZFS
	for _, tt := range []struct {
		name string
		at   int64
		mark string
	}{
		{"jfs", 32768, "JFS1"}, {"nilfs2", 1030, "\x34\x34"}, {"ocfs2", 4096, "OCFSV2"}, {"gfs2", 65536, "\x01\x16\x19\x70"},
		{"hfs", 1024, "BD"}, {"hfsplus", 1024, "H+\x00\x04"}, {"hfsplus", 1024, "HX\x00\x05"}, {"apfs", 32, "NXSB"}, {"reiserfs", 65588, "ReIsEr2Fs"},
		{"udf", 32769, "BEA01"},
		{"ceph_bluestore", 0, "bluestore block device\n"}, {"bcache", 4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca"}, {"bcache", 4120, "\xc6\x85\x73\xf6\x66\xce\x90\xa9"},
		{"stratis", 516, "!Stra0tis\x86\xff\x02^\x41rh"}, {"LVM2_member", 1560, "LVM2 001"},
		{"drbd", size - 4036, "\x83\x74\x02\x6b"}, {"drbd", size - 4036, "\x83\x74\x02\x6d"},
		{"isw_raid_member", size - 1024, "Intel Raid ISM Cfg Sig. 1.3.00"}, {"ddf_raid_member", size - 512, "\xde\x11\xde\x11"},
		{"zfs_member", 132 << 10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"}, {"zfs_member", 511 << 10, "\x00\x00\x00\x00\x00\xba\xb1\x0c"},
		{"zfs_member", last - 384<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"}, {"zfs_member", last - 1024, "\x0c\xb1\xba\x00\x00\x00\x00\x00"},
		{"iso9660", 32769, "CD001"}, {"ntfs", 3, "NTFS    "}, {"exfat", 3, "EXFAT   "}, {"f2fs", 1024, "\x10\x20\xf5\xf2"}, {"squashfs", 0, "hsqs"}, {"erofs", 1024, "\xe2\xe1\xf5\xe0"},
	} {
		f := newFile(t, size)
		if _, err := f.WriteAt([]byte(tt.mark), tt.at); err != nil {
			t.Fatal(err)
		}
		probe(t, f, size, tt.name)
		if err := Erase(f, size); err != nil {
			t.Fatal(err)
		}
		probe(t, f, size, "")
	}
	f := newFile(t, size)
	for at, mark := range map[int64]string{last - 1024: "\x0c\xb1\xba\x00\x00\x00\x00\x00", 0: "XFSB"} {
		if _, err := f.WriteAt([]byte(mark), at); err != nil {
			t.Fatal(err)
		}
	}
	probe(t, f, size, "xfs")
}

func FuzzProbe(f *testing.F) {
	f.Add([]byte("XFSB"), int64(100))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if _, err := Probe(bytes.NewReader(b), min(max(size, 0), 1<<40)); err != nil {
			t.Error(err)
		}
	})
}
