package initramfs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/kernel"
	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/internal/testenv"
)

// fakeKernel is a prepared kernel of small modules.
func fakeKernel(t *testing.T) *kernel.Kernel {
	t.Helper()
	k := &kernel.Kernel{Version: "6.12.1", Dir: t.TempDir()}
	for name, text := range map[string]string{
		"modules.dep": `kernel/fs/erofs.ko:
kernel/fs/ext4.ko: kernel/fs/jbd2.ko
kernel/fs/jbd2.ko:
kernel/scsi/scsi_mod.ko:
kernel/scsi/sd_mod.ko: kernel/scsi/scsi_mod.ko
kernel/scsi/virtio_scsi.ko: kernel/scsi/scsi_mod.ko
kernel/scsi/sas.ko: kernel/scsi/scsi_mod.ko
kernel/scsi/mpt3sas.ko: kernel/scsi/sas.ko kernel/scsi/scsi_mod.ko
`,
		"modules.softdep": "", "modules.builtin": "kernel/virtio/virtio_pci.ko\n",
		"modules.alias": "alias virtio:d00000008v* virtio_scsi\nalias pci:v00001000d00000097sv*sd*bc*sc*i* mpt3sas\nalias fs-ext4 ext4\n",
	} {
		write(t, filepath.Join(k.ModulesDir(), name), text)
	}
	for _, m := range []string{"fs/erofs", "fs/ext4", "fs/jbd2", "scsi/scsi_mod", "scsi/sd_mod", "scsi/virtio_scsi", "scsi/sas", "scsi/mpt3sas"} {
		p := "kernel/" + m + ".ko"
		write(t, filepath.Join(k.ModulesDir(), p), "plain "+m)
		write(t, k.Packed(p), "packed "+m)
	}
	return k
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

var modules = manifest.Modules{
	Always: []string{"erofs", "sd_mod"}, Drivers: []string{"virtio_scsi", "virtio_pci"}, Packed: []string{"mpt3sas"}, Root: []string{"ext4", "erofs"},
}

// TestBuild lets cpio(1) read the archive.
func TestBuild(t *testing.T) {
	tools := testenv.Tools(t)
	init := filepath.Join(t.TempDir(), "init")
	write(t, init, "the program")
	b, err := Build(fakeKernel(t), modules, init)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := tools.Command(t.Context(), "cpio", "-id", "--quiet", "--no-preserve-owner", "init", "etc/*", "lib/*")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(b)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for name, want := range map[string]string{
		"init":             "the program",
		"etc/proa/modules": "/lib/modules/erofs.ko\n/lib/modules/scsi_mod.ko\n/lib/modules/sd_mod.ko\n",
		"etc/proa/drivers": "/lib/modules/scsi_mod.ko /lib/modules/virtio_scsi.ko virtio:d00000008v*\n" +
			"/lib/modules/scsi_mod.ko /lib/modules/sas.ko.xz /lib/modules/mpt3sas.ko.xz pci:v00001000d00000097sv*sd*bc*sc*i*\n",
		// erofs is loaded already; the root image's modules are not in the archive.
		"etc/proa/root-modules":     "/usr/lib/modules/6.12.1/kernel/fs/jbd2.ko\n/usr/lib/modules/6.12.1/kernel/fs/ext4.ko\n",
		"lib/modules/scsi_mod.ko":   "plain scsi/scsi_mod",
		"lib/modules/mpt3sas.ko.xz": "packed scsi/mpt3sas",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	if got, _ := os.ReadDir(filepath.Join(dir, "lib/modules")); len(got) != 6 {
		t.Errorf("got modules %v, want six", got)
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    manifest.Modules
		want string
	}{
		{"unknown module", manifest.Modules{Drivers: []string{"nosuch"}}, `"nosuch"`},
		{"driver of nothing", manifest.Modules{Drivers: []string{"scsi_mod"}}, "initramfs.modules"},
	} {
		if _, err := Build(fakeKernel(t), tt.m, os.DevNull); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}
