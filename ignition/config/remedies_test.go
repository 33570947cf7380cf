package config

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRemedies: for every error that upstream's validation can return, and this package beside it, a person is told what was expected and
// what to do. One that a later version of upstream brings fails here until somebody has written both.
func TestRemedies(t *testing.T) {
	const upstream = "github.com/coreos/ignition/v2/config/"
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", upstream+"shared/errors", upstream+"shared/validations", upstream+"v3_6/types", upstream+"validate", ".")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	dirs := map[string]string{}
	for dir := range strings.Lines(string(out)) {
		dir = strings.TrimSpace(dir)
		dirs[filepath.Base(dir)] = dir
	}
	if err != nil || len(dirs) != 5 {
		t.Fatalf("go list: %v, got %q", err, out)
	}
	words := errorWords(t, dirs["errors"])
	used := map[string]bool{}
	for _, dir := range []string{"types", "validate", "validations", "config"} {
		for _, f := range sources(t, dirs[dir]) {
			if dir == "config" && f.name == "remedies.go" {
				continue
			}
			ast.Inspect(f.File, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && words[s.Sel.Name] != "" {
					used[s.Sel.Name] = true
				}
				return true
			})
		}
	}
	if len(used) < 60 {
		t.Fatalf("only %d errors", len(used))
	}
	for name := range used {
		for _, path := range []string{"storage.x[0]", "storage.files[0].contents.source", "storage.luks[0].clevis.tang[0].url", "storage.files[0].contents.httpHeaders"} {
			i := Issue{Problem: words[name]}
			explain(&i, path, nil)
			if i.Expected == "" || i.Next == "" {
				t.Errorf("%s at %s (%s): got expected %q, next step %q, want both: write them in remedies.go", name, path, i.Problem, i.Expected, i.Next)
			}
		}
	}
}

// errorWords are the texts of the errors that a package declares, by their names; of those that a function makes, as well.
func errorWords(t *testing.T, dir string) map[string]string {
	t.Helper()
	words := map[string]string{}
	text := func(name string, n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING && words[name] == "" {
				s, err := strconv.Unquote(l.Value)
				if err != nil {
					t.Fatal(err)
				}
				words[name] = s
			}
			return true
		})
	}
	for _, f := range sources(t, dir) {
		ast.Inspect(f.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, name := range n.Names {
					text(name.Name, n.Values[i])
				}
			case *ast.FuncDecl:
				text(n.Name.Name, n.Body)
			}
			return true
		})
	}
	return words
}

type file struct {
	name string
	*ast.File
}

// sources are the files of a package, without its tests.
func sources(t *testing.T, dir string) []file {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all []file
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file{filepath.Base(name), f})
	}
	return all
}
