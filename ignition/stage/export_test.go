package stage

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// The journal goes to the port of that name and to no other; without a device for ports nothing is loaded.
func TestExport(t *testing.T) {
	sys, dev := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	loaded := 0
	e := Exporter{Sys: sys, Dev: dev, Load: func(_ context.Context, names ...string) error {
		loaded++ // the driver shows its ports
		write(sys+"/class/virtio-ports/vport1p1/name", "org.qemu.guest_agent.0\n")
		write(sys+"/class/virtio-ports/vport1p2/name", journalPort+"\n")
		write(dev+"/vport1p1", "")
		write(dev+"/vport1p2", "")
		return nil
	}, Journal: func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "{}\n")
		return err
	}}
	write(sys+"/bus/virtio/devices/virtio0/device", "0x0002\n")
	if err := e.Export(t.Context()); err != nil || loaded > 0 {
		t.Errorf("without ports: %v, loaded %d times", err, loaded)
	}
	write(sys+"/bus/virtio/devices/virtio1/device", "0x0003\n")
	if err := e.Export(t.Context()); err != nil || loaded != 1 {
		t.Errorf("with ports: %v, loaded %d times", err, loaded)
	}
	for name, want := range map[string]string{"vport1p1": "", "vport1p2": "{}\n"} {
		if got, err := os.ReadFile(filepath.Join(dev, name)); string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}
