package device

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/ignition/signature"
	"github.com/proa-os/proa/internal/gpt"
)

// sysfs is what the kernel says of some disks, and their nodes.
func sysfs(t *testing.T) System {
	t.Helper()
	s := System{Sys: t.TempDir(), Dev: tempDir(t), Timeout: 10 * time.Second}
	for name, text := range map[string]string{
		"sr0/size": "2048\n", "vda/size": "2048\n", "vda/serial": "data disk \n", "vda/uevent": "MAJOR=254\nDEVNAME=vda\nDEVTYPE=disk\n",
		"vda1/size": "2048\n", "vda1/partition": "1\n", "vda1/uevent": "DEVTYPE=partition\nPARTN=1\nPARTUUID=0F1E2D3C-01\nPARTNAME=my data\n",
		"vda12/size": "2048\n", "vda12/partition": "12\n", "vda12/uevent": "PARTN=12\nPARTNAME=a/b\n",
		"vdb/size": "2048\n", "vdc/size": "2048\n", "md127/size": "2048\n",
		"nvme0n1/size": "2048\n", "nvme0n1/device/model": "Fast Disk             \n", "nvme0n1/device/serial": "S1\n", "nvme0n1/nsid": "1\n", "nvme0n1/wwid": "eui.0025385a\n",
		"nvme0n1p2/size": "2048\n", "nvme0n1p2/partition": "2\n",
		"sda/size": "2048\n", "sda/device/wwid": "naa.5000c5001234\n", "sda3/size": "2048\n", "sda3/partition": "3\n",
		"dm-0/size": "2048\n", "dm-0/dm/name": "box\n",
	} {
		name = filepath.Join(s.Sys, "class/block", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	swap(t, s.Dev+"/vdb", "my data", "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1")
	swap(t, s.Dev+"/md127", "both", "1f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1")
	// A member of an array whose metadata are at its end, as of level 1 with --metadata=1.0.
	swap(t, s.Dev+"/dm-0", "both", "1f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1")
	f, err := os.OpenFile(s.Dev+"/dm-0", os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("\xfc\x4e\x2b\xa9\x01\x00\x00\x00--------0123456789abcdefany:pair\x00"), 1<<20-8192)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return s
}

func swap(t *testing.T, name, label, id string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(1<<20), signature.FormatSwap(f, 1<<20, 4096, label, id), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestLinks(t *testing.T) {
	s := sysfs(t)
	for name, want := range map[string]string{
		"/dev/vdb":                       "vdb",
		"/dev/vdd":                       "",
		"/dev/disk/by-label/my\\x20data": "vdb",
		"/dev/disk/by-label/my data":     "vdb",
		"/dev/disk/by-label/data":        "",
		"/dev/disk/by-label/both":        "md127",
		"/dev/disk/by-uuid/0F1E2D3C-4b5a-4978-8695-a4b3c2d1e0f1": "vdb",
		"/dev/disk/by-uuid/1f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1": "md127",
		"/dev/disk/by-partuuid/0f1e2d3c-01":                      "vda1",
		"/dev/disk/by-partlabel/my\\x20data":                     "vda1",
		"/dev/disk/by-partlabel/a\\x2fb":                         "vda12",
		"/dev/disk/by-id/virtio-data_disk":                       "vda",
		"/dev/disk/by-id/virtio-data_disk-part1":                 "vda1",
		"/dev/disk/by-id/virtio-data_disk-part12":                "vda12",
		"/dev/disk/by-id/virtio-data_disk-part2":                 "",
		"/dev/disk/by-id/nvme-Fast_Disk_S1":                      "nvme0n1",
		"/dev/disk/by-id/nvme-Fast_Disk_S1_1":                    "nvme0n1",
		"/dev/disk/by-id/nvme-eui.0025385a":                      "nvme0n1",
		"/dev/disk/by-id/nvme-eui.0025385a-part2":                "nvme0n1p2",
		"/dev/disk/by-id/nvme-Fast_Disk_S1_1-part2":              "nvme0n1p2",
		"/dev/disk/by-id/wwn-0x5000c5001234":                     "sda",
		"/dev/disk/by-id/wwn-0x5000c5001234-part3":               "sda3",
		"/dev/mapper/box":                                        "dm-0",
		"/dev/disk/by-path/pci-0000:00:01.0":                     "",
	} {
		got, err := links{sys: os.DirFS(s.Sys), dev: s.Dev}.resolve(name)
		if want == "" && !errors.Is(err, fs.ErrNotExist) || want != "" && (err != nil || got != filepath.Join(s.Dev, want)) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}

// Who has changed a table asks before udev has made its links anew.
func TestStaleLinks(t *testing.T) {
	s := sysfs(t)
	for link, node := range map[string]string{"by-partlabel/a\\x2fb": "vda1", "by-partlabel/volume": "dm-0", "by-label/x": "vdb", "by-label/my\\x20data": "dm-0"} {
		link = filepath.Join(s.Dev, "disk", link)
		if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.WriteFile(s.Dev+"/vda1", nil, 0o600), os.Symlink(s.Dev+"/"+node, link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"by-partlabel/a\\x2fb":     "vda12", // not vda1
		"by-partlabel/volume":      "dm-0",
		"by-label/x":               "vdb", // by a rule that is not known here
		"by-label/my\\x20data":     "vdb", // dm-0 has another one now
		"by-partlabel/my\\x20data": "vda1",
	} {
		if got, err := (links{sys: os.DirFS(s.Sys), dev: s.Dev}).resolve("/dev/disk/" + name); err != nil || got != filepath.Join(s.Dev, want) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}

// Of a partition that it was told about by itself the kernel knows neither name nor GUID, and of one that was given another name the old one.
func TestNamesOfTables(t *testing.T) {
	s := sysfs(t)
	for name, text := range map[string]string{
		"vdd/size": "16384\n", "vdd/queue/logical_block_size": "512\n", "vdd/uevent": "DEVNAME=vdd\n", "vdd3/partition": "3\n", "vdd3/uevent": "PARTN=3\n",
		"vdd4/partition": "4\n", "vdd4/uevent": "PARTN=4\nPARTNAME=new\nPARTUUID=2f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1\n", "vdd5/partition": "5\n", "vdd5/uevent": "PARTN=5\nPARTNAME=untold\n",
	} {
		name = filepath.Join(s.Sys, "class/block", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	table := gpt.Table{DiskGUID: "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f0", SectorSize: 512, Sectors: 16384, Conventional: true, Partitions: []gpt.Partition{
		{Number: 3, Name: "new", TypeGUID: gpt.TypeLinux, GUID: "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1", FirstLBA: 2048, LastLBA: 4095},
		{Number: 4, Name: "old", TypeGUID: gpt.TypeLinux, GUID: "1f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1", FirstLBA: 4096, LastLBA: 8191},
	}}
	f, err := os.Create(s.Dev + "/vdd")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(8<<20), table.Write(f), f.Close(), os.MkdirAll(s.Dev+"/disk/by-partlabel", 0o755), os.Symlink(s.Dev+"/vdb", s.Dev+"/disk/by-partlabel/new")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"by-partlabel/new": "vdd3", "by-partlabel/old": "vdd4", "by-partlabel/untold": "vdd5",
		"by-partuuid/0F1E2D3C-4b5a-4978-8695-a4b3c2d1e0f1": "vdd3", "by-partuuid/1f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1": "vdd4", "by-partuuid/2f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1": "",
	} {
		got, err := links{sys: os.DirFS(s.Sys), dev: s.Dev}.resolve("/dev/disk/" + name)
		if want == "" && !errors.Is(err, fs.ErrNotExist) || want != "" && (err != nil || got != filepath.Join(s.Dev, want)) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`a\x20b`: "a b", `\x2f\x5c`: `/\`, `a\x2`: `a\x2`, `a\xzz\x20`: `a\xzz `, `a\x`: `a\x`, "a": "a"} {
		if got := unescape(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

// Disks come when they come: a name is asked for again until there is one.
func TestWaitForDevice(t *testing.T) {
	s := sysfs(t)
	for _, name := range []string{"/dev/vdz", "/dev/disk/by-label/late"} {
		if err := errors.Join(os.MkdirAll(s.Sys+"/class/block/vdz", 0o755), os.WriteFile(s.Sys+"/class/block/vdz/size", []byte("2048\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
		made := make(chan struct{})
		time.AfterFunc(50*time.Millisecond, func() {
			defer close(made)
			swap(t, s.Dev+"/new", "late", "2f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1")
			if err := os.Rename(s.Dev+"/new", s.Dev+"/vdz"); err != nil {
				t.Error(err)
			}
		})
		got, err := s.find(t.Context(), name)
		<-made
		if err != nil || got != s.Dev+"/vdz" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		if err := os.Remove(s.Dev + "/vdz"); err != nil {
			t.Fatal(err)
		}
	}
	s.Timeout = 50 * time.Millisecond
	const want = "no such device: expected a block device called /dev/vdz, found none within 50ms; correct the name, or attach the disk"
	if _, err := s.find(t.Context(), "/dev/vdz"); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v", err)
	}
}

// A partition that is gone for a moment, with its node, is opened when it is back.
func TestOpenAgain(t *testing.T) {
	s := sysfs(t)
	made := make(chan error)
	time.AfterFunc(50*time.Millisecond, func() { made <- os.Symlink("/dev/null", s.Dev+"/vda12") })
	_, err := s.Open(t.Context(), "/dev/disk/by-partlabel/a\\x2fb")
	if merr := <-made; merr != nil || err == nil || !strings.Contains(err.Error(), "expected a block device") {
		t.Errorf("got %v, %v, want the node opened that came late, which is none of a disk", err, merr)
	}
	if err := os.Remove(s.Dev + "/vda12"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), "/dev/disk/by-partlabel/a\\x2fb"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("never there: got %v", err)
	}
}
