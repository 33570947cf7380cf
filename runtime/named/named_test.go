package named

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type thing struct{ Value int }

var errNone = errors.New("no such thing")

// TestRecords: both forms, with what lies beside them; a file that is broken is an error and not a missing one.
func TestRecords(t *testing.T) {
	for _, file := range []string{".json", "/thing.json"} {
		dir := t.TempDir()
		r := Records[thing]{Dir: dir, Kind: "thing", File: file, None: errNone}
		put := func(name, text string) {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put("b"+file, `{"value":2}`)
		put("a"+file, `{"value":1}`)
		put(".new-c"+file, `{`)
		put("lock", "")
		put("other.txt", "")
		if err := os.MkdirAll(filepath.Join(dir, "empty"), 0o755); err != nil { // as a volume that is just being removed
			t.Fatal(err)
		}
		if v, err := r.Get("a"); err != nil || v.Value != 1 {
			t.Errorf("%s: %+v %v", file, v, err)
		}
		if list, err := r.List(); err != nil || len(list) != 2 || list[0].Value != 1 || list[1].Value != 2 {
			t.Errorf("%s: %v %v", file, list, err)
		}
		if _, err := r.Get("c"); !errors.Is(err, errNone) || !strings.HasPrefix(err.Error(), "c: ") {
			t.Errorf("%s: a missing one: %v", file, err)
		}
		for _, name := range []string{"", "..", "../b", "a/b", "a,b", ".new-c", strings.Repeat("n", 129)} {
			if _, err := r.Get(name); err == nil || !strings.Contains(err.Error(), "thing name") {
				t.Errorf("%q: %v", name, err)
			}
		}
		put("b"+file, `{"value":`)
		if _, err := r.Get("b"); err == nil || errors.Is(err, errNone) || !strings.Contains(err.Error(), "read thing b") {
			t.Errorf("%s: a broken one: %v", file, err)
		}
		if _, err := r.List(); err == nil {
			t.Errorf("%s: a broken one is not told of", file)
		}
	}
}
