package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOSVersion(t *testing.T) {
	name := filepath.Join(t.TempDir(), "os-release")
	for in, want := range map[string]string{
		"ID=proa\nIMAGE_VERSION=1.0.1\nVERSION_ID=9\n": "1.0.1",
		"IMAGE_VERSION=\"1.0.1-rc.1\"\n":               "1.0.1-rc.1",
		"IMAGE_VERSION=1.0.1~rc.1-2\n":                 "1.0.1-rc.1-2",
	} {
		if err := os.WriteFile(name, []byte(in), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := osVersion(name); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	if err := os.WriteFile(name, []byte("ID=debian\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := osVersion(name); err == nil || !strings.Contains(err.Error(), "no IMAGE_VERSION") {
		t.Errorf("another system: %v", err)
	}
}
