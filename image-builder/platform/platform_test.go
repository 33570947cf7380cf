package platform

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/grub"
	"github.com/proa-os/proa/image-builder/imagetest"
	"github.com/proa-os/proa/image-builder/inspect"
	"github.com/proa-os/proa/image-builder/qcow2"
	"github.com/proa-os/proa/internal/firstboot"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/uki"
)

// built is a small release with GRUB on its ESP.
func built(t *testing.T) (disk string) {
	t.Helper()
	dir, _ := imagetest.Build(t, imagetest.Spec{Version: "1.0.0", GRUB: grub.Config})
	return filepath.Join(dir, "disk.img")
}

func words(t *testing.T, platform string, parameters ...string) []string {
	t.Helper()
	w, err := firstboot.Words(platform, parameters)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func mustSet(t *testing.T, name string, words []string, out string) *Result {
	t.Helper()
	r, err := Set(t.Context(), name, words, out)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The ESP says it to both loaders, as other programs see it, and nothing else has changed; another platform takes the place of the first, and without
// one it is the image that it was.
func TestSet(t *testing.T) {
	disk := built(t)
	before := read(t, disk)
	url := "ignition.config.url=http://h:80/c.ign?rack=b&id=[7]"
	metal := words(t, "metal", url, "ip=192.0.2.10::192.0.2.1:255.255.255.0::eth0:off")
	r := mustSet(t, disk, metal, "")
	if want := []File{{disk, "raw", true}}; r.Platform != "metal" || !slices.Equal(r.Arguments, metal) || !slices.Equal(r.Files, want) {
		t.Errorf("got %+v", r)
	}
	after := read(t, disk)
	judge(t, disk, metal)
	table, err := gpt.Read(bytes.NewReader(after), int64(len(after)), 512)
	if err != nil {
		t.Fatal(err)
	}
	esp := table.Partitions[0]
	at, end := table.Offset(esp), table.Offset(esp)+table.Size(esp)
	if len(before) != len(after) || !bytes.Equal(before[:at], after[:at]) || !bytes.Equal(before[end:], after[end:]) {
		t.Error("something beside the ESP has changed")
	}
	one, two := inspected(t, before), inspected(t, after)
	if len(two.Warnings) > 0 || two.Programs[0].SHA256 != one.Programs[0].SHA256 {
		t.Errorf("warnings %q, boot programs %+v, before %+v", two.Warnings, two.Programs, one.Programs)
	}
	if want := []inspect.Addon{{File: "platform.addon.efi", CommandLine: strings.Join(metal, " ")}}; !slices.Equal(two.Addons, want) || len(one.Addons) > 0 {
		t.Errorf("inspect sees %+v, before %+v", two.Addons, one.Addons)
	}
	if got, err := Read(disk); err != nil || got.Platform != "metal" || !slices.Equal(got.Arguments, metal) {
		t.Errorf("read %+v, %v", got, err)
	}

	if r := mustSet(t, disk, metal, ""); r.Files[0].Written || !bytes.Equal(read(t, disk), after) {
		t.Errorf("the same again: got %+v", r)
	}
	mustSet(t, disk, words(t, "aws"), "")
	judge(t, disk, words(t, "aws"))
	mustSet(t, disk, metal, "")
	if !bytes.Equal(read(t, disk), after) {
		t.Error("it depends on what was there before")
	}
	mustSet(t, disk, nil, "")
	if !bytes.Equal(read(t, disk), before) {
		t.Error("without a platform it is not the image that was built")
	}
	if got, err := Read(disk); err != nil || got.Platform != "" || got.Arguments == nil || len(got.Arguments) > 0 {
		t.Errorf("read %+v, %v", got, err)
	}
	left, err := os.ReadDir(filepath.Dir(disk))
	if err != nil || len(left) != 4 {
		t.Errorf("%v is in the folder, %v", left, err)
	}
}

func inspected(t *testing.T, disk []byte) *inspect.Image {
	t.Helper()
	i, err := inspect.Read(bytes.NewReader(disk), int64(len(disk)), inspect.Options{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// judge has mtools and fsck.fat look at the ESP, and grub-editenv at the block.
func judge(t *testing.T, disk string, words []string) {
	t.Helper()
	tools := testenv.Tools(t)
	dir := t.TempDir()
	run := func(program string, args ...string) string {
		t.Helper()
		out, err := tools.Command(t.Context(), program, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", program, err, out)
		}
		return string(out)
	}
	const start = 1 << 20
	esp, addon, block := filepath.Join(dir, "esp"), filepath.Join(dir, "addon"), filepath.Join(dir, "block")
	if err := os.WriteFile(esp, read(t, disk)[start:][:40<<20], 0o644); err != nil {
		t.Fatal(err)
	}
	run("fsck.fat", "-n", esp)
	run("mcopy", "-i", esp, "::/"+firstboot.AddonFile, addon)
	run("mcopy", "-i", esp, "::/grub/platform.env", block)
	want := strings.Join(words, " ")
	if got, err := uki.ReadAddon(read(t, addon)); err != nil || got != want {
		t.Errorf("the addon says %q, %v, want %q", got, err, want)
	}
	if got := run("grub-editenv", block, "list"); got != "platform="+want+"\n" {
		t.Errorf("grub-editenv says %q, want %q", got, want)
	}
}

// A copy can be of the other format, and the image itself stays as it is; of a release's folder both images are changed.
func TestFormats(t *testing.T) {
	disk := built(t)
	before := read(t, disk)
	dir := t.TempDir()
	packed, raw := filepath.Join(dir, "a.qcow2"), filepath.Join(dir, "a.raw")
	aws := words(t, "aws")
	if r := mustSet(t, disk, aws, packed); r.Files[0] != (File{packed, "qcow2", true}) {
		t.Errorf("got %+v", r)
	}
	mustSet(t, packed, aws, raw)
	if !bytes.Equal(read(t, disk), before) {
		t.Error("the image has changed, although a copy was wanted")
	}
	mustSet(t, filepath.Dir(disk), aws, "")
	if !bytes.Equal(read(t, raw), read(t, disk)) {
		t.Error("by way of qcow2 it is another image")
	}
	judge(t, raw, aws)
	if fi, err := os.Stat(raw); err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("got %v, %v", fi.Mode(), err)
	}
	if out, err := testenv.Tools(t).Command(t.Context(), "qemu-img", "compare", "-f", "qcow2", "-F", "raw", packed, raw).CombinedOutput(); err != nil {
		t.Errorf("qemu-img compare: %v\n%s", err, out)
	}

	both := filepath.Join(filepath.Dir(disk), "disk.qcow2")
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(qcow2.Write(both, f, int64(len(before))), os.Chmod(disk, 0o600)); err != nil {
		t.Fatal(err)
	}
	r := mustSet(t, filepath.Dir(disk), words(t, "gcp"), "")
	if want := []File{{disk, "raw", true}, {both, "qcow2", true}}; !slices.Equal(r.Files, want) {
		t.Errorf("got %+v, want %+v", r.Files, want)
	}
	for _, name := range []string{disk, both} {
		if got, err := Read(name); err != nil || got.Platform != "gcp" {
			t.Errorf("%s: read %+v, %v", name, got, err)
		}
	}
	if fi, err := os.Stat(disk); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want the mode that it had", fi.Mode(), err)
	}
}

// What cannot be told is refused, and nothing is changed.
func TestRefused(t *testing.T) {
	grubless, _ := imagetest.Build(t, imagetest.Spec{Version: "1.0.0"})
	deaf, _ := imagetest.Build(t, imagetest.Spec{Version: "1.0.0", GRUB: "load_env --file /grub/ignition.env ignition\n"})
	named, _ := imagetest.Build(t, imagetest.Spec{Version: "1.0.0", Words: " ignition.platform.id=qemu"})
	long := words(t, "metal", "ignition.config.url=data:,"+strings.Repeat("x", 1950))
	for _, tt := range []struct {
		name, want string
		words      []string
	}{
		{deaf, "does not read grub/platform.env", words(t, "aws")},
		{named, "proa_1.0.0.efi names the platform qemu", words(t, "aws")},
		{grubless, "expected at most 2047", long},
		{filepath.Join(grubless, "root.img"), "expected a disk image", words(t, "aws")},
		{filepath.Join(grubless, "nothing"), "no such file", words(t, "aws")},
	} {
		var before []byte
		disk := filepath.Join(tt.name, "disk.img")
		if _, err := os.Stat(disk); err == nil {
			before = read(t, disk)
		}
		if _, err := Set(t.Context(), tt.name, tt.words, ""); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
		if before != nil && !bytes.Equal(read(t, disk), before) {
			t.Errorf("%s: refused, and changed", tt.want)
		}
	}
	mustSet(t, named, words(t, "qemu"), "") // the same twice is no error on a machine
	mustSet(t, grubless, words(t, "aws"), "")

	gone := filepath.Join(t.TempDir(), "out.img")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := Set(ctx, grubless, words(t, "gcp"), gone); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(gone)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
