package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/signature"
	"github.com/proa-os/proa/internal/gpt"
)

// An image stands in for a device that the config describes, by its whole name: one that stands in for none would be left out of the plan.
func TestImagesOf(t *testing.T) {
	one := []plan.Op{plan.Disk{Disk: types.Disk{Device: "/dev/vdb"}}}
	two := append(one, plan.Disk{Disk: types.Disk{Device: "/dev/vdc"}})
	for _, tt := range []struct {
		flag string
		ops  []plan.Op
		want string // device
	}{
		{"/dev/vdb=x.img", one, "/dev/vdb"}, {"x.img", one, "/dev/vdb"}, {"/dev/vdc=x.img", two, "/dev/vdc"},
		{"vdb=x.img", one, ""}, {"=x.img", one, ""}, {"b=x.img", two, ""}, {"/dev/vdb=", one, ""}, {"x.img", two, ""}, {"/dev/vdb=x.img", nil, ""}, {"x.img", nil, ""},
	} {
		got, err := imagesOf([]string{tt.flag}, tt.ops)
		if tt.want == "" {
			reason := "expected DEVICE=IMAGE with one of the disks that the config describes"
			if len(tt.ops) == 0 {
				reason = "expected a config that describes disks"
			}
			if err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("%s: got %v, %v, want it refused", tt.flag, got, err)
			}
		} else if err != nil || len(got) != 1 || got[tt.want] == nil || got[tt.want].name != "x.img" {
			t.Errorf("%s: got %v, %v, want it for %s", tt.flag, got, err, tt.want)
		}
	}
}

// What a plan says of the file systems on an image is what the machine would do.
func TestPlanOfFilesystemsOnImage(t *testing.T) {
	const mib, size = 1 << 20, 64 << 20
	image := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	table := &gpt.Table{DiskGUID: gpt.NewGUID([16]byte{1}), SectorSize: 512, Sectors: size / 512, Conventional: true, Partitions: []gpt.Partition{
		{Number: 1, Name: "data", TypeGUID: gpt.TypeLinux, GUID: gpt.NewGUID([16]byte{2}), FirstLBA: 2048, LastLBA: 10*2048 - 1},
		{Number: 2, Name: "pages", TypeGUID: gpt.TypeLinux, GUID: gpt.NewGUID([16]byte{3}), FirstLBA: 10 * 2048, LastLBA: 20*2048 - 1}}}
	err = errors.Join(f.Truncate(size), table.Write(f))
	for at, text := range map[int64]string{1080: "\x53\xef", 1024 + 0x60: "\x40", 1024 + 0x68: "0123456789abcdef", 1024 + 0x78: "data"} { // ext4
		_, werr := f.WriteAt([]byte(text), mib+at)
		err = errors.Join(err, werr)
	}
	err = errors.Join(err, signature.FormatSwap(io.NewOffsetWriter(f, 10*mib), 10*mib, 4096, "pages", "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"), f.Close())
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "c.ign")
	if err := os.WriteFile(config, []byte(`{"ignition":{"version":"3.4.0"},"storage":{
	 "disks":[{"device":"/dev/nvme0n1","partitions":[{"number":1,"label":"data"},{"number":3,"label":"new","sizeMiB":8},{"number":4,"label":"empty","sizeMiB":8}]}],
	 "filesystems":[{"device":"/dev/nvme0n1p1","format":"ext4","label":"data"},{"device":"/dev/nvme0n1p2","format":"ext4"},{"device":"/dev/nvme0n1p3","format":"ext4"},
	  {"device":"/dev/disk/by-partlabel/empty","format":"none"},{"device":"/dev/disk/by-partlabel/pages","format":"ext4","wipeFilesystem":true},{"device":"/dev/vdz","format":"ext4"}]}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _, err := do(t, "plan", "-image", image, config)
	if err == nil || err.Error() != "plan: 1 of 7 operations would be refused" {
		t.Errorf("got %v", err)
	}
	var got []string
	for _, operation := range strings.Split(out, ". make ")[1:] {
		_, effect, _ := strings.Cut(operation, "\n")
		effect, _, _ = strings.Cut(effect, "\n")
		got = append(got, strings.TrimSpace(effect))
	}
	want := []string{`reuse ext4 "data" with UUID 30313233-3435-3637-3839-616263646566`,
		`refused: the device holds something else: expected nothing, or ext4, found swap "pages" with UUID 0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1; correct the config, or set "wipeFilesystem": true to lose what is there`,
		"made; nothing is there", "there is none", `made anew; what is there is lost: swap "pages" with UUID 0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1`, ""}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s\nof\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), out)
	}
}

// What --image cannot do is said, with what can.
func TestPlanOfFilesOnImage(t *testing.T) {
	_, _, err := do(t, "plan", "-image", "disk.img", "../../examples/ssh.ign")
	if err == nil || exitStatus(err) != 2 || !strings.Contains(err.Error(), "expected a config that describes disks, found one without") || !strings.Contains(err.Error(), "fsck.erofs --extract=DIR root.img") {
		t.Errorf("got %v", err)
	}
}
