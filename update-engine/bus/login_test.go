package bus

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLogin(t *testing.T) {
	name := filepath.Join(t.TempDir(), "loginuid")
	for text, want := range map[string]string{"0\n": "root", "4294967295": "", "": "", "x": "", "3999999999": "user 3999999999"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := login(name); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if got := login(name + "x"); got != "" {
		t.Errorf("no file: %q", got)
	}
}
