package program

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// What a user has set for Go, in the environment or with go env -w, must not reach the programs.
func TestBuildIgnoresSettings(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "go.mod", "module example.test/hello\n\ngo 1.26\n")
	write(t, dir, "main.go", "package main\n\nfunc main() { println(text) }\n")
	write(t, dir, "plain.go", "//go:build !tagged && !goexperiment.jsonv2\n\npackage main\n\nconst text = \"compiled of plain.go\"\n")
	write(t, dir, "tagged.go", "//go:build tagged || goexperiment.jsonv2\n\npackage main\n\nconst text = \"compiled of tagged.go\"\n")
	compile := func(t *testing.T) (program []byte, inputs string) {
		t.Helper()
		out := t.TempDir()
		if err := Build(t.Context(), dir, "amd64", out, []string{"."}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(out, "hello"))
		if err != nil {
			t.Fatal(err)
		}
		l, err := List(t.Context(), dir, "amd64", []string{"."})
		if err != nil {
			t.Fatal(err)
		}
		return b, l.Inputs["."]
	}
	for _, s := range settings("amd64") {
		name, _, _ := strings.Cut(s, "=")
		t.Setenv(name, "")
	}
	t.Setenv("GOENV", "off")
	program, inputs := compile(t)
	if !bytes.Contains(program, []byte("compiled of plain.go")) || bytes.Contains(program, []byte("compiled of tagged.go")) {
		t.Error("without any settings the program has a tag")
	}
	for name, value := range map[string]string{
		"GOFLAGS": "-tags=tagged", "GOEXPERIMENT": "jsonv2", "GOFIPS140": "latest", "GOAMD64": "v3", "CGO_ENABLED": "1",
		"GOWORK": filepath.Join(dir, "none.work"),
	} {
		t.Run(name, func(t *testing.T) {
			stored := filepath.Join(t.TempDir(), "env")
			write(t, filepath.Dir(stored), "env", name+"="+value+"\n")
			t.Setenv("GOENV", stored)
			check := func(where string) {
				t.Helper()
				if p, i := compile(t); !bytes.Equal(p, program) || i != inputs {
					t.Errorf("%s: another program: %v, other inputs: %v", where, !bytes.Equal(p, program), i != inputs)
				}
			}
			check("stored")
			t.Setenv("GOENV", "off")
			t.Setenv(name, value)
			check("in the environment")
		})
	}
}

// The settings switch off what a user has switched on, and nothing that Go has switched on itself.
func TestSettingsAreGoDefaults(t *testing.T) {
	tags := func(env ...string) string {
		t.Helper()
		cmd := exec.Command("go", "list", "-f", "{{context.ToolTags}} {{context.BuildTags}}", "runtime")
		cmd.Env = env
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	own := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "GOENV=off"}
	want := tags(append(own, "GOARCH=amd64", "GOAMD64=v1")...)
	if !strings.Contains(want, "goexperiment.") {
		t.Fatalf("Go has no experiments by default: %s", want)
	}
	stored := filepath.Join(t.TempDir(), "env")
	write(t, filepath.Dir(stored), "env", "GOEXPERIMENT=jsonv2\nGOFLAGS=-tags=tagged\n")
	t.Setenv("GOENV", stored)
	if got := tags(environment("amd64")...); got != want {
		t.Errorf("got %s, want %s", got, want)
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

// A program's key must follow whatever its bytes follow, and nothing else.
func TestList(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"go.mod":            "module example.test/hello\n\ngo 1.26\n",
		"cmd/hello/main.go": "package main\n\nimport (\n\t_ \"embed\"\n\n\t\"example.test/hello/word\"\n)\n\n//go:embed text\nvar text string\n\nfunc main() { println(word.Word, text) }\n",
		"cmd/hello/text":    "text",
		"cmd/bye/main.go":   "package main\n\nfunc main() { println(\"bye\") }\n",
		"word/word.go":      "package word\n\nconst Word = \"hello\"\n",
		"word/doc.txt":      "not compiled",
	}
	for name, text := range files {
		write(t, dir, name, text)
	}
	packages := []string{"./cmd/bye", "./cmd/hello"}
	list := func() *Listing {
		t.Helper()
		l, err := List(t.Context(), dir, "amd64", packages)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	old := list()
	if old.GoVersion == "" || old.Key("./cmd/bye") == old.Key("./cmd/hello") {
		t.Fatalf("got %+v", old)
	}
	for _, step := range []struct {
		file, text string
		changes    bool // of hello; bye stays the same
	}{
		{"word/doc.txt", "still not compiled", false},
		{"word/word.go", "package word\n\nconst Word = \"hallo\"\n", true},
		{"cmd/hello/text", "other", true},
	} {
		write(t, dir, step.file, step.text)
		l := list()
		if got := l.Key("./cmd/hello") != old.Key("./cmd/hello"); got != step.changes {
			t.Errorf("%s: hello's key changed: %v, want %v", step.file, got, step.changes)
		}
		if l.Key("./cmd/bye") != old.Key("./cmd/bye") {
			t.Errorf("%s: bye's key changed", step.file)
		}
		old = l
	}
	if _, err := List(t.Context(), dir, "amd64", []string{"./cmd/none"}); err == nil || !bytes.Contains([]byte(err.Error()), []byte("cmd/none")) {
		t.Errorf("got %v", err)
	}
}

// What is saved while the compiler runs must not be kept as the older source's program.
func TestChanged(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "go.mod", "module example.test/hello\n\ngo 1.26\n")
	write(t, dir, "cmd/hello/main.go", "package main\n\nfunc main() {}\n")
	source := filepath.Join(dir, "cmd/hello/main.go")
	long := time.Now().Add(-time.Hour)
	for _, p := range []string{source, filepath.Dir(source), filepath.Join(dir, "go.mod")} {
		if err := os.Chtimes(p, long, long); err != nil {
			t.Fatal(err)
		}
	}
	l, err := List(t.Context(), dir, "amd64", []string{"./cmd/hello"})
	if err != nil {
		t.Fatal(err)
	}
	if name, err := l.Changed(); err != nil || name != "" {
		t.Errorf("untouched: got %q, %v", name, err)
	}
	write(t, dir, "cmd/hello/main.go", "package main\n\nfunc main() { println() }\n")
	if name, err := l.Changed(); err != nil || name != source {
		t.Errorf("got %q, %v, want %s", name, err, source)
	}
	if err := os.Chtimes(source, long, long); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cmd/hello/more.go", "package main\n")
	if name, err := l.Changed(); err != nil || name != filepath.Dir(source) {
		t.Errorf("a new file: got %q, %v, want its directory", name, err)
	}
	if err := os.Chtimes(filepath.Dir(source), long, long); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(filepath.Dir(source), "more.go"), long, long); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "go.mod", "module example.test/hello\n\ngo 1.26.0\n")
	if name, err := l.Changed(); err != nil || name != filepath.Join(dir, "go.mod") {
		t.Errorf("go.mod: got %q, %v", name, err)
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
