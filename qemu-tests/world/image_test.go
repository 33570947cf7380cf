package world

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const releaseJSON = `{"version":"VERSION","arch":"amd64",
"root_image":{"size":16384,"sha256":"SUM","root_hash":"SUM","salt":"00","hash_offset":4096},
"boot_program":{"size":10,"sha256":"SUM"},"packages":[],
"build":{"go_version":"go1.26","manifest_sha256":"SUM","lock_sha256":"SUM"}}`

func writeImage(t *testing.T, dir, version string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	json := strings.NewReplacer("VERSION", version, "SUM", strings.Repeat("ab", 32)).Replace(releaseJSON)
	for name, content := range map[string]string{"release.json": json, "disk.img": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewestImage(t *testing.T) {
	out := t.TempDir()
	if _, err := NewestImage(out); err == nil || !strings.Contains(err.Error(), "make image") {
		t.Errorf("got %v, want an error that says what to do", err)
	}
	for _, v := range []string{"1.9.0", "1.10.0", "1.10.0-rc.1"} {
		writeImage(t, filepath.Join(out, v), v)
	}
	writeImage(t, filepath.Join(out, "half"), "9.0.0")
	if err := os.Remove(filepath.Join(out, "half", "disk.img")); err != nil {
		t.Fatal(err)
	}
	i, err := NewestImage(out)
	if err != nil || i.Version() != "1.10.0" || i.Disk() != filepath.Join(out, "1.10.0", "disk.img") {
		t.Errorf("got %+v, %v, want 1.10.0", i, err)
	}
}

func TestProgramsRun(t *testing.T) {
	repo := t.TempDir()
	files := map[string]string{
		"go.mod":           "module example\n\ngo 1.26\n",
		"cmd/say/main.go":  "package main\nimport (\"fmt\";\"os\")\nfunc main() { fmt.Println(os.Args[1]); fmt.Fprintln(os.Stderr, \"why\"); if os.Args[1] == \"no\" { os.Exit(2) } }\n",
		"cmd/torn/main.go": "package main\nfunc main() { nonsense }\n",
	}
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(repo, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(repo, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := NewPrograms(repo, t.TempDir())
	var progress strings.Builder
	if out, err := p.Run(t.Context(), &progress, "cmd/say", "hello"); err != nil || out != "hello\n" || progress.String() != "why\n" {
		t.Errorf("got %q, %q, %v", out, progress.String(), err)
	}
	out, err := p.Run(t.Context(), nil, "cmd/say", "no")
	if err == nil || out != "no\n" || !strings.Contains(err.Error(), "run say no: exit status 2\nwhy") {
		t.Errorf("got %q, %v, want its status and words", out, err)
	}
	if _, err := p.Run(t.Context(), nil, "cmd/torn"); err == nil || !strings.Contains(err.Error(), "build cmd/torn") || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("got %v, want the compiler's words", err)
	}
}
