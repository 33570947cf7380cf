package kernel

import (
	"io"
	"reflect"
	"strings"
	"testing"
)

var files = map[string]string{
	"modules.dep": `kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
kernel/crypto/crc32c_generic.ko:
kernel/arch/x86/crypto/crc32c-intel.ko:
kernel/drivers/md/dm-verity.ko: kernel/drivers/md/dm-bufio.ko kernel/drivers/md/dm-mod.ko
kernel/drivers/md/dm-bufio.ko: kernel/drivers/md/dm-mod.ko
kernel/drivers/md/dm-mod.ko:
`,
	"modules.softdep": "# Soft dependencies extracted from modules themselves.\nsoftdep libcrc32c pre: crc32c\nsoftdep dm_mod post: erofs\n",
	"modules.alias":   "alias crc32c crc32c_generic\nalias crc32c crc32c_intel\nalias pci:v* erofs\n",
	"modules.builtin": "kernel/drivers/virtio/virtio_pci.ko\n",
}

func index(t *testing.T) *Index {
	t.Helper()
	x, err := ReadIndex(func(n string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(files[n])), nil })
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestOrder(t *testing.T) {
	got, err := index(t).Order([]string{"virtio-pci", "erofs", "dm-verity", "dm-mod"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"kernel/crypto/crc32c_generic.ko", "kernel/arch/x86/crypto/crc32c-intel.ko", "kernel/lib/libcrc32c.ko",
		"kernel/fs/erofs/erofs.ko", "kernel/drivers/md/dm-mod.ko", "kernel/drivers/md/dm-bufio.ko", "kernel/drivers/md/dm-verity.ko",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestOrderUnknown(t *testing.T) {
	if _, err := index(t).Order([]string{"nosuch"}); err == nil || !strings.Contains(err.Error(), `"nosuch"`) {
		t.Errorf("got %v", err)
	}
}
