package kmod

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/cmdline"
)

func TestParseList(t *testing.T) {
	got, err := ParseList("/lib/modules/virtio_blk.ko\n/lib/modules/dm-mod.ko.xz\n")
	if want := []string{"/lib/modules/virtio_blk.ko", "/lib/modules/dm-mod.ko.xz"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := ParseList(""); len(got) != 0 || err != nil {
		t.Errorf("empty list: %q, %v", got, err)
	}
	for _, text := range []string{
		"\n", "lib/a.ko\n", "/lib/a.xz\n", "/lib/a.ko.xz.xz\n", "/lib/.ko.xz\n", "/lib/a\n", "/lib/../a.ko\n", "/lib//a.ko\n", "/lib/.ko\n", "/lib/a.ko\n\n",
		"/lib/a.ko\r\n", "/lib/a.ko\n/lib/a.ko\n", "# comment\n",
	} {
		if got, err := ParseList(text); err == nil {
			t.Errorf("%q: accepted as %q", text, got)
		}
	}
}

func FuzzParseList(f *testing.F) {
	f.Add("/lib/modules/a.ko\n/b.ko\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseList(text)
		if err != nil {
			return
		}
		if joined := strings.Join(list, "\n"); joined != strings.TrimSuffix(text, "\n") {
			t.Errorf("%q parsed as %q", text, list)
		}
		for _, file := range list {
			if !filepath.IsAbs(file) || Name(file) == "" {
				t.Errorf("%q parsed as %q", text, list)
			}
		}
	})
}

func TestParameters(t *testing.T) {
	line := cmdline.Parse(`proa.roothash=1 nvme-core.default_ps_max_latency_us=0 nvme_core.io_timeout=255 nvme_core.flag nvme.x=1 quiet "nvme_core.name=a b" nvme_core.=1`)
	if got, want := Parameters(line, Name("/lib/modules/nvme-core.ko")), `default_ps_max_latency_us=0 io_timeout=255 flag name="a b"`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Parameters(line, "erofs"); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestLoadMissing(t *testing.T) {
	if err := Load(filepath.Join(t.TempDir(), "none.ko"), ""); err == nil || !strings.Contains(err.Error(), "none.ko") {
		t.Errorf("got %v", err)
	}
}
