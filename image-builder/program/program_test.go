package program

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The same source in two directories must give the same bytes: nothing of the build host may be in them.
func TestBuildIsReproducible(t *testing.T) {
	var got [2][]byte
	for i := range got {
		dir, out := t.TempDir(), t.TempDir()
		write(t, dir, "go.mod", "module example.test/hello\n\ngo 1.26\n")
		write(t, dir, "cmd/hello/main.go", "package main\n\nfunc main() { println(\"hello\") }\n")
		if err := Build(t.Context(), dir, "amd64", out, []string{"./cmd/hello"}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(out, "hello"))
		if err != nil {
			t.Fatal(err)
		}
		got[i] = b
		if bytes.Contains(b, []byte(dir)) {
			t.Errorf("the program holds the directory it was built in: %s", dir)
		}
	}
	if !bytes.Equal(got[0], got[1]) {
		t.Error("two builds of the same source differ")
	}
}

func TestBuildSaysWhy(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "go.mod", "module example.test/hello\n\ngo 1.26\n")
	write(t, dir, "main.go", "package main\n\nfunc main() { undefined() }\n")
	err := Build(t.Context(), dir, "amd64", t.TempDir(), []string{"."})
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("undefined: undefined")) {
		t.Errorf("got %v, want the compiler's message", err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
