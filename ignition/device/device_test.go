package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/pin"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/signature"
	"github.com/proa-os/proa/ignition/source"
	"github.com/proa-os/proa/internal/testenv"
)

func planOf(t *testing.T, storage string) []plan.Op {
	t.Helper()
	m, err := config.Load(t.Context(), "c.ign", []byte(`{"ignition":{"version":"3.6.0"},"storage":`+storage+`}`), func(context.Context, types.Resource, types.Config) ([]byte, error) {
		return nil, errors.New("no network here")
	})
	if err != nil {
		t.Fatal(err)
	}
	ops, err := plan.Build(m)
	if err != nil {
		t.Fatal(err)
	}
	return ops
}

func newRoot(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(tempDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// do runs a plan and returns what was done, a line each.
func do(t *testing.T, m *files, root *os.Root, storage string) (string, error) {
	t.Helper()
	var lines []string
	devices, _, _ := plan.Split(planOf(t, storage))
	err := Run(t.Context(), m, devices, Options{Root: root, Fetch: (&source.Fetcher{Offline: true}).Fetch,
		Done: func(_ plan.Op, outcome string) { lines = append(lines, outcome) }})
	return strings.Join(lines, "\n"), err
}

const wholeConfig = `{
 "disks":[{"device":"/dev/vda","wipeTable":true,"partitions":[{"number":1,"label":"data","sizeMiB":24},{"label":"pages","sizeMiB":8},{"label":"box"}]},
  {"device":"/dev/vdb","partitions":[{"number":1,"label":"precious"},{"number":2,"label":"new","sizeMiB":20}]}],
 "raid":[{"name":"pair","level":"raid1","devices":["/dev/vdc","/dev/vdd"]}],
 "luks":[{"name":"box","device":"/dev/vda3","label":"box","wipeVolume":true}],
 "filesystems":[{"device":"/dev/vda1","format":"ext4","label":"data","wipeFilesystem":true,"path":"/var/lib/data"},
  {"device":"/dev/vda2","format":"swap","label":"pages"},
  {"device":"/dev/vdb1","format":"ext4","label":"precious","path":"/var/lib/data/precious"},
  {"device":"/dev/vdb2","format":"vfat","label":"NEW"},
  {"device":"/dev/md/pair","format":"ext4"},
  {"device":"/dev/mapper/box","format":"ext4","label":"inside"}]}`

// prepare makes a machine whose second disk has a file system that somebody needs.
func prepare(t *testing.T, marks bool) (*files, *os.Root) {
	t.Helper()
	m := newFiles(t, testenv.Tools(t), map[string]int64{"vda": 64 * mib, "vdb": 48 * mib, "vdc": 16 * mib, "vdd": 16 * mib})
	m.marks = marks
	root := newRoot(t)
	if _, err := do(t, m, root, `{"disks":[{"device":"/dev/vdb","partitions":[{"number":1,"label":"precious","sizeMiB":16}]}],
	 "filesystems":[{"device":"/dev/vdb1","format":"ext4","label":"precious"}]}`); err != nil {
		t.Fatal(err)
	}
	if err := m.mark(m.dir+"/vdb1", 15*mib, "precious bytes"); err != nil {
		t.Fatal(err)
	}
	if err := root.RemoveAll("var"); err != nil {
		t.Fatal(err)
	}
	return m, root
}

func precious(t *testing.T, m *files) {
	t.Helper()
	b, err := os.ReadFile(m.dir + "/vdb1")
	if err != nil || len(b) < 16*mib || string(b[15*mib:15*mib+14]) != "precious bytes" {
		t.Errorf("what was on vdb1 is lost: %v, %d bytes", err, len(b))
	}
}

const wholeDump = `mapper!box: ext4 inside
md!pair: ext4 
vda1: ext4 data
vda2: swap pages
vda3: luks2 box
vda: gpt , 1 data 1-25, 2 pages 25-33, 3 box 33-63
vdb1: ext4 precious
vdb2: vfat NEW
vdb: gpt , 1 precious 1-17, 2 new 17-37
vdc: linux_raid_member any:pair
vdd: linux_raid_member any:pair`

func TestWhole(t *testing.T) {
	m, root := prepare(t, false)
	out, err := do(t, m, root, wholeConfig)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.dump(); got != wholeDump {
		t.Errorf("got\n%s\nwant\n%s", got, wholeDump)
	}
	for _, want := range []string{`new partition table; create 1 "data", sectors 2048 to 51199`, `keep 1 "precious", sectors 2048 to 34815; create 2 "new"`, `made ext4 "data"`, `reuse ext4 "precious"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	precious(t, m)
	b, err := root.ReadFile("etc/crypttab")
	if err != nil || !strings.HasPrefix(string(b), "box UUID=") || !strings.HasSuffix(string(b), " /etc/luks/box luks\n") {
		t.Errorf("crypttab: %v, %q", err, b)
	}
	if info, err := root.Stat("etc/luks/box"); err != nil || info.Mode() != 0o600 || info.Size() != 4096 {
		t.Errorf("key: %v, %v", err, info)
	}
	// What is done stays as it is, although the config says wipe.
	if err := m.mark(m.dir+"/vda1", 23*mib, "written since"); err != nil {
		t.Fatal(err)
	}
	m.boot()
	m.ran = nil
	if out, err = do(t, m, root, strings.Replace(wholeConfig, `{"device":"/dev/md/pair","format":"ext4"},`, "", 1)); err != nil && !strings.Contains(err.Error(), "mapper") {
		t.Fatalf("again: %v\n%s", err, out)
	}
	if ran := strings.Join(m.ran, "\n"); strings.Contains(ran, "mkfs") && !strings.Contains(ran, "inside") || strings.Contains(ran, "luksFormat") || strings.Contains(ran, "--create") {
		t.Errorf("again ran\n%s", ran)
	}
	if b, err := os.ReadFile(m.dir + "/vda1"); err != nil || string(b[23*mib:23*mib+13]) != "written since" {
		t.Errorf("vda1 was made anew: %v", err)
	}
}

// TestPowerCutAnywhere stops before every step, with programs that die half way as well, and boots again.
func TestPowerCutAnywhere(t *testing.T) {
	for n, done := 0, false; !done; n++ {
		if !t.Run(fmt.Sprint(n), func(t *testing.T) { done = cutAt(t, n) }) {
			return
		}
	}
}

// cutAt cuts the power before step n, and reports whether there are no so many.
func cutAt(t *testing.T, n int) (done bool) {
	m, root := prepare(t, true)
	left, last := n, ""
	devices, _, _ := plan.Split(planOf(t, wholeConfig))
	o := Options{Root: root, Fetch: (&source.Fetcher{Offline: true}).Fetch}
	o.Fault = func(step string) error {
		if last = step; left == 0 {
			return errors.New("power cut")
		}
		left--
		m.half = left == 0 && strings.HasPrefix(step, "run ")
		return nil
	}
	err := Run(t.Context(), m, devices, o)
	if err == nil && n < 25 {
		t.Errorf("only %d steps", n)
	}
	m.half = false
	m.boot()
	if _, err := do(t, m, root, wholeConfig); err != nil {
		t.Fatalf("cut before %q, second run: %v\n%s", last, err, m.dump())
	}
	if got := m.dump(); got != wholeDump {
		t.Fatalf("cut before %q: got\n%s\nwant\n%s", last, got, wholeDump)
	}
	precious(t, m)
	if b, err := root.ReadFile(journalFile); err != nil || strings.Contains(string(b), `"begun": true`) {
		t.Fatalf("cut before %q: the journal has unfinished work: %v\n%s", last, err, b)
	}
	return err == nil
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name, storage, want string
		prepare             func(m *files)
	}{
		{"file system of another kind", `{"filesystems":[{"device":"/dev/vdb1","format":"xfs"}]}`,
			`the device holds something else: expected nothing, or xfs, found ext4 "precious"`, nil},
		{"other label", `{"filesystems":[{"device":"/dev/vdb1","format":"ext4","label":"x"}]}`, `expected nothing, or ext4 with label "x", found ext4 "precious"`, nil},
		{"none over something", `{"filesystems":[{"device":"/dev/vdb1","format":"none"}]}`, `expected nothing, found ext4 "precious"`, nil},
		{"mounted", `{"filesystems":[{"device":"/dev/vdb1","format":"xfs","wipeFilesystem":true}]}`, `refuse to change`, func(m *files) { m.busy["vdb1"] = "mounted on /x" }},
		{"partition in use", `{"disks":[{"device":"/dev/vdb","partitions":[{"number":1,"shouldExist":false,"wipePartitionEntry":true}]}]}`,
			`expected one that is not in use, found in use: mounted on /x`, func(m *files) { m.busy["vdb1"] = "mounted on /x" }},
		{"own partition", `{"disks":[{"device":"/dev/vdb","wipeTable":true}]}`, `that the running system does not need, found one of its own`, func(m *files) { m.own["vdb1"] = true }},
		{"own file system", `{"filesystems":[{"device":"/dev/vdb1","format":"xfs","wipeFilesystem":true}]}`, `the running system needs it`, func(m *files) { m.own["vdb1"] = true }},
		{"no such device", `{"filesystems":[{"device":"/dev/vdz","format":"xfs"}]}`, `no such device: expected a block device called /dev/vdz`, nil},
		{"volume over a file system", `{"luks":[{"name":"x","device":"/dev/vdb1"}]}`, `expected nothing, or an encrypted volume of type luks2, found ext4 "precious"`, nil},
		{"array over something in use", `{"raid":[{"name":"x","level":"raid1","devices":["/dev/vdc","/dev/vdd"]}]}`, "another array", func(m *files) { m.busy["vdc"] = "array md0" }},
		{"half of an array and a new device", `{"raid":[{"name":"x","level":"raid1","devices":["/dev/vdc","/dev/vdd"]}]}`, "expected all of its members, or none, found 1 of 2",
			func(m *files) {
				m.mark(m.dir+"/vdc", 4096, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"+strings.Repeat("u", 24)+"any:x\x00")
			}},
		{"file system on the disk", `{"disks":[{"device":"/dev/vdc","partitions":[{"number":1}]}]}`, `the disk is in use for something else: expected an empty disk or a GPT partition table, found ext2`,
			func(m *files) { m.mark(m.dir+"/vdc", 1080, "\x53\xef") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, root := prepare(t, true)
			if tt.prepare != nil {
				tt.prepare(m)
			}
			before := m.dump()
			_, err := do(t, m, root, tt.storage)
			var issues config.Issues
			if !errors.As(err, &issues) || !strings.Contains(err.Error(), tt.want) || issues[0].Line == 0 {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if after := m.dump(); after != before {
				t.Errorf("was\n%s\nis\n%s", before, after)
			}
			precious(t, m)
		})
	}
}

// The power goes when a table is about to be written, and in the next boot another disk of that size has the name.
func TestAnotherDiskOfThatName(t *testing.T) {
	m, root := prepare(t, true)
	m.ids["vdc"] = "one"
	const storage = `{"disks":[{"device":"/dev/vdc","partitions":[{"number":1,"label":"data"}]}]}`
	devices, _, _ := plan.Split(planOf(t, storage))
	fault := func(step string) error {
		if strings.HasPrefix(step, "write table") {
			return errors.New("the power goes")
		}
		return nil
	}
	if err := Run(t.Context(), m, devices, Options{Root: root, Fault: fault}); err == nil || !strings.Contains(err.Error(), "the power goes") {
		t.Fatalf("got %v, want that it begins", err)
	}
	m.ids["vdc"] = "another"
	if err := m.mark(m.dir+"/vdc", 1080, "\x53\xef"); err != nil {
		t.Fatal(err)
	}
	if _, err := do(t, m, root, storage); err == nil || !strings.Contains(err.Error(), "found ext2") {
		t.Errorf("got %v, want that what another disk holds stays", err)
	}
	m.ids["vdc"] = "one"
	if said, err := do(t, m, root, storage); err != nil || said != "finished what was begun before" {
		t.Errorf("the same disk: got %q, %v", said, err)
	}
}

// The table of the specification's reuse rules.
func TestFitsFilesystem(t *testing.T) {
	ext4 := signature.Signature{Type: "ext4", Label: "l", UUID: "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"}
	vfat := signature.Signature{Type: "vfat", UUID: "0F1E-2D3C"}
	for _, tt := range []struct {
		config string
		found  []signature.Signature
		want   string
	}{
		{`"format":"ext4"`, nil, "make"},
		{`"format":"ext4"`, []signature.Signature{ext4}, "reuse"},
		{`"format":"ext4","label":"l","uuid":"0F1E2D3C-4B5A-4978-8695-A4B3C2D1E0F1"`, []signature.Signature{ext4}, "reuse"},
		{`"format":"ext4","label":"m"`, []signature.Signature{ext4}, "refuse"},
		{`"format":"ext4","uuid":"1f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"`, []signature.Signature{ext4}, "refuse"},
		{`"format":"xfs"`, []signature.Signature{ext4}, "refuse"},
		{`"format":"xfs","wipeFilesystem":true`, []signature.Signature{ext4}, "make"},
		{`"format":"ext4","wipeFilesystem":true`, []signature.Signature{ext4}, "make"},
		{`"format":"ext4"`, []signature.Signature{ext4, vfat}, "refuse"},
		{`"format":"vfat","uuid":"0f1e2d3c"`, []signature.Signature{vfat}, "reuse"},
		{`"format":"none"`, nil, "reuse"},
		{`"format":"none"`, []signature.Signature{ext4}, "refuse"},
		{`"format":"none","wipeFilesystem":true`, []signature.Signature{ext4}, "make"},
	} {
		ops := planOf(t, `{"filesystems":[{"device":"/dev/x",`+tt.config+`}]}`)
		reuse, err := FitsFilesystem(ops[0].(plan.Filesystem), tt.found)
		got := map[bool]string{true: "reuse", false: "make"}[reuse]
		if err != nil {
			got = "refuse"
		}
		if got != tt.want {
			t.Errorf("%s over %v: %s, %v, want %s", tt.config, tt.found, got, err, tt.want)
		}
	}
}

// A volume that is opened by the TPM keeps no key on the disk, also when a power cut comes between.
func TestTPM(t *testing.T) {
	m, root := prepare(t, true)
	const storage = `{"luks":[{"name":"box","device":"/dev/vdc","clevis":{"tpm2":true}}]}`
	for range 2 {
		m.ran = nil
		if _, err := do(t, m, root, storage); err != nil {
			t.Fatal(err)
		}
		if _, err := root.Stat("etc/luks/box"); err == nil {
			t.Error("the key is still there")
		}
		b, err := root.ReadFile("etc/crypttab")
		if err != nil || !strings.HasSuffix(string(b), " - luks,tpm2-device=auto\n") || strings.Count(string(b), "\n") != 1 {
			t.Errorf("crypttab: %q, %v", b, err)
		}
	}
	if got := strings.Join(m.ran, "\n"); got != "systemd-cryptsetup attach box /dev/vdc - tpm2-device=auto" {
		t.Errorf("the second run ran\n%s", got)
	}
}

// A volume that servers open has a key of the machine only as long as it takes to bind it, also when a power cut comes between; one of the
// config stays a key of the volume. What asks at boot is written beside crypttab.
func TestLocked(t *testing.T) {
	const thumbprint = "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"
	const tang = `"clevis":{"tang":[{"url":"http://tang","thumbprint":"` + thumbprint + `"}]}`
	for name, tc := range map[string]struct{ storage, locked, options, removed string }{
		"generated":   {`{"luks":[{"name":"my-box","device":"/dev/vdc",` + tang + `}]}`, "tang http://tang", "luks,headless=1,_netdev", "cryptsetup luksRemoveKey --batch-mode --key-file - /dev/vdc"},
		"key file":    {`{"luks":[{"name":"my-box","device":"/dev/vdc","discard":true,"keyFile":{"source":"data:,secret"},` + tang + `}]}`, "tang http://tang", "luks,discard,headless=1,_netdev", ""},
		"both":        {`{"luks":[{"name":"my-box","device":"/dev/vdc","clevis":{"tpm2":true,"threshold":2,` + tang[10:] + `}]}`, "2 of (tang http://tang, the TPM)", "luks,headless=1,_netdev", "cryptsetup luksRemoveKey --batch-mode --key-file - /dev/vdc"},
		"custom TPM":  {`{"luks":[{"name":"my-box","device":"/dev/vdc","clevis":{"custom":{"pin":"tpm2","config":"{}"}}}]}`, "the TPM", "luks,headless=1", "cryptsetup luksRemoveKey --batch-mode --key-file - /dev/vdc"},
		"custom tang": {`{"luks":[{"name":"my-box","device":"/dev/vdc","clevis":{"custom":{"pin":"tang","needsNetwork":true,"config":"{\"url\":\"http://tang\",\"adv\":{}}"}}}]}`, "tang http://tang", "luks,headless=1,_netdev", "cryptsetup luksRemoveKey --batch-mode --key-file - /dev/vdc"},
	} {
		t.Run(name, func(t *testing.T) {
			m, root := prepare(t, true)
			var did []string
			devices, _, _ := plan.Split(planOf(t, tc.storage))
			o := Options{Root: root, Fetch: (&source.Fetcher{Offline: true}).Fetch,
				Bind: func(_ context.Context, device string, p pin.Pin, existing []byte) error {
					if len(existing) == 0 {
						return errors.New("no key")
					}
					did = append(did, "bind "+p.String())
					return nil
				},
				Unlock: func(_ context.Context, device, name string, options ...string) error {
					did = append(did, fmt.Sprintf("unlock %s %s", name, options))
					return nil
				}}
			for range 2 {
				if err := Run(t.Context(), m, devices, o); err != nil {
					t.Fatal(err)
				}
				if _, err := root.Stat("etc/luks/my-box"); err == nil {
					t.Error("the key is still there")
				}
			}
			if got := strings.Join(did, "\n"); !strings.HasPrefix(got, "bind "+tc.locked+"\nunlock my-box [--persistent") {
				t.Errorf("did %s", got)
			}
			ran := strings.Join(m.ran, "\n")
			if tc.removed != "" && !strings.HasSuffix(ran, tc.removed) || tc.removed == "" && strings.Contains(ran, "luksRemoveKey") || strings.Contains(ran, "cryptenroll") {
				t.Errorf("ran\n%s", ran)
			}
			b, err := root.ReadFile("etc/crypttab")
			if err != nil || !strings.HasSuffix(string(b), " /run/clevis/my-box.sock "+tc.options+"\n") || strings.Count(string(b), "\n") != 1 {
				t.Errorf("crypttab: %q, %v", b, err)
			}
			b, err = root.ReadFile(`etc/systemd/system/systemd-cryptsetup@my\x2dbox.service.d/clevis.conf`)
			if err != nil || !strings.Contains(string(b), `Requires=clevis@my\x2dbox.socket`) {
				t.Errorf("drop-in: %q, %v", b, err)
			}
		})
	}
}

func TestKeyFile(t *testing.T) {
	m, root := prepare(t, true)
	storage := `{"luks":[{"name":"box","device":"/dev/vdc","label":"l","keyFile":{"source":"data:,secret"}}]}`
	for _, want := range []string{`made luks2 "l"`, "as it was made before"} {
		if out, err := do(t, m, root, storage); err != nil || !strings.HasPrefix(out, want) {
			t.Fatalf("got %q, %v, want %q", out, err, want)
		}
	}
	// On a machine that knows nothing of it, the volume is reused.
	if out, err := do(t, m, newRoot(t), storage); err != nil || !strings.HasPrefix(out, `reuse luks2 "l"`) {
		t.Fatalf("got %q, %v", out, err)
	}
	if _, err := do(t, m, newRoot(t), `{"luks":[{"name":"box","device":"/dev/vdc","label":"l"}]}`); err == nil || !strings.Contains(err.Error(), "a key file in the config") {
		t.Errorf("without a key: %v", err)
	}
	long := strings.Repeat("k", 8<<20+1)
	if _, err := do(t, m, newRoot(t), `{"luks":[{"name":"box","device":"/dev/vdc","label":"l","keyFile":{"source":"data:,`+long+`"}}]}`); err == nil || !strings.Contains(err.Error(), "at most 8 MiB") {
		t.Errorf("a long key: %v", err)
	}
}
