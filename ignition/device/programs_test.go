package device

import (
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/signature"
)

// What a config says reaches the programs, in the order in which upstream gives it to them: what was forgotten on the way would be
// made, and be another thing than the config says.
func TestPrograms(t *testing.T) {
	const id = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"
	const upper = "0F1E2D3C-4B5A-4978-8695-A4B3C2D1E0F1"
	key := `"keyFile":{"source":"data:,secret"}`
	tests := []struct {
		name, storage, want string
		holds               string // what /dev/vdc has afterwards, if that is said
	}{
		{"array with spares and options", `{"raid":[{"name":"trio","level":"raid1","spares":1,"options":["--bitmap=internal","--assume-clean"],"devices":["/dev/vdb","/dev/vdc","/dev/vdd"]}]}`,
			"mdadm --create /dev/md/trio --force --run --homehost any --level raid1 --raid-devices 2 --spare-devices 1 --bitmap=internal --assume-clean /dev/vdb /dev/vdc /dev/vdd", `linux_raid_member "any:trio"`},
		{"array without", `{"raid":[{"name":"pair","level":"raid0","devices":["/dev/vdb","/dev/vdc"]}]}`,
			"mdadm --create /dev/md/pair --force --run --homehost any --level raid0 --raid-devices 2 /dev/vdb /dev/vdc", ""},
		{"volume", `{"luks":[{"name":"box","device":"/dev/vdc","label":"l","uuid":"` + id + `","options":["--cipher","aes-xts-plain64"],` + key + `}]}`,
			"cryptsetup luksFormat --batch-mode --type luks2 --key-file - --label l --uuid " + id + " --cipher aes-xts-plain64 /dev/vdc\n" +
				"cryptsetup luksOpen --key-file - --persistent /dev/vdc box", `luks2 "l"`},
		{"volume opened with options", `{"luks":[{"name":"box","device":"/dev/vdc","discard":true,"openOptions":["--perf-no_read_workqueue","--perf-no_write_workqueue"],` + key + `}]}`,
			"cryptsetup luksFormat --batch-mode --type luks2 --key-file - /dev/vdc\n" +
				"cryptsetup luksOpen --key-file - --persistent --allow-discards --perf-no_read_workqueue --perf-no_write_workqueue /dev/vdc box", ""},
		{"volume over an ext4 file system", `{"luks":[{"name":"box","device":"/dev/vda","label":"l","wipeVolume":true,` + key + `}]}`,
			"cryptsetup luksFormat --batch-mode --type luks2 --key-file - --label l /dev/vda\ncryptsetup luksOpen --key-file - --persistent /dev/vda box", ""},
		{"ext4", `{"filesystems":[{"device":"/dev/vdc","format":"ext4","label":"data","uuid":"` + upper + `","options":["-m","0"]}]}`, "mkfs.ext4 -m 0 -q -F -U " + id + " -L data /dev/vdc", ""},
		{"xfs", `{"filesystems":[{"device":"/dev/vdc","format":"xfs","label":"data","uuid":"` + upper + `","options":["-i","size=1024"]}]}`, "mkfs.xfs -i size=1024 -q -f -m uuid=" + id + " -L data /dev/vdc", ""},
		{"btrfs", `{"filesystems":[{"device":"/dev/vdc","format":"btrfs","label":"data","uuid":"` + upper + `","options":["--mixed"]}]}`, "mkfs.btrfs --mixed -q --force -U " + id + " -L data /dev/vdc", ""},
		{"vfat", `{"filesystems":[{"device":"/dev/vdc","format":"vfat","label":"DATA","uuid":"0F1E-2D3C","options":["-s","1"]}]}`, "mkfs.vfat -s 1 -i 0f1e2d3c -n DATA /dev/vdc", `vfat "DATA"`},
		{"ext4 with nothing said", `{"filesystems":[{"device":"/dev/vdc","format":"ext4"}]}`, "mkfs.ext4 -q -F /dev/vdc", ""},
		{"swap", `{"filesystems":[{"device":"/dev/vdc","format":"swap","label":"pages","uuid":"` + upper + `"}]}`, "", `swap "pages" with UUID ` + id},
		{"none over ext4", `{"filesystems":[{"device":"/dev/vda","format":"none","wipeFilesystem":true}]}`, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newFiles(t, nil, map[string]int64{"vda": 16 * mib, "vdb": 16 * mib, "vdc": 16 * mib, "vdd": 16 * mib})
			m.marks = true
			if err := m.pretend("mkfs.ext4", m.dir+"/vda", []string{"-L", "was here"}); err != nil {
				t.Fatal(err)
			}
			if _, err := do(t, m, newRoot(t), tt.storage); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(m.ran, "\n"); got != tt.want {
				t.Errorf("ran\n%s\nwant\n%s", got, tt.want)
			}
			if got := holds(t, m, "/dev/vdc"); !strings.HasPrefix(got, tt.holds) {
				t.Errorf("vdc: %s, want %s", got, tt.holds)
			}
			if got := holds(t, m, "/dev/vda"); strings.Contains(tt.storage, "/dev/vda") == strings.Contains(got, "was here") {
				t.Errorf("vda: %s", got)
			}
		})
	}
}

// holds is what a device holds.
func holds(t *testing.T, m *files, name string) string {
	t.Helper()
	d, err := m.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	found, err := signature.Probe(d, d.Size())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range found {
		all = append(all, s.String())
	}
	return strings.Join(all, ", ")
}

// What a program says is on the screen, and nothing is beside it: some answer a mistake with all that they could have been asked.
func TestProgramThatSaysMuch(t *testing.T) {
	err := System{}.Run(t.Context(), []byte("first\nexit 3\n"), "sh", "-c", "read word; echo $word is wrong; seq 1000; read word; $word")
	if err == nil || !strings.HasPrefix(err.Error(), "sh: exit status 3: first is wrong 1 2") || len(err.Error()) > 500 {
		t.Errorf("got %v", err)
	}
}
