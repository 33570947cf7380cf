package verity

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// veritysetup must make the same bytes, and accept ours.
func TestVeritysetup(t *testing.T) {
	tools := testenv.Tools(t)
	dir := t.TempDir()
	data, theirs, ours := filepath.Join(dir, "data"), filepath.Join(dir, "theirs"), filepath.Join(dir, "ours")
	s := salt()
	for _, n := range sizes() {
		content := noise(n)
		root, tree := build1(t, content)
		for path, b := range map[string][]byte{data: content, ours: tree, theirs: nil} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := tools.Command(t.Context(), "veritysetup", "format", "--salt="+hex.EncodeToString(s[:]),
			"--uuid=00000000-0000-0000-0000-000000000009", data, theirs).CombinedOutput()
		if err != nil || !strings.Contains(string(out), root.String()) {
			t.Fatalf("%d blocks: want root hash %s, veritysetup format: %v\n%s", n, root, err, out)
		}
		want, err := os.ReadFile(theirs)
		if err != nil {
			t.Fatal(err)
		}
		// veritysetup writes 512 bytes of the superblock and leaves the rest of a fresh file empty.
		if !bytes.Equal(append(want, make([]byte, max(0, len(tree)-len(want)))...), tree) {
			t.Errorf("%d blocks: tree differs from veritysetup's", n)
		}
		if out, err := tools.Command(t.Context(), "veritysetup", "verify", data, ours, root.String()).CombinedOutput(); err != nil {
			t.Errorf("%d blocks: veritysetup verify: %v\n%s", n, err, out)
		}
	}
}
