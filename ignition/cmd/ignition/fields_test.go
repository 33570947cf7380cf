package main

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// specification is where the types of a config are declared.
const specification = "github.com/coreos/ignition/v2/config/v3_6/types"

// readFields are the fields of a config that the packages of dirs read, as Type.Field. Names alone would not do: many types have
// Options, Label or UUID, and one that is read hides all others.
func readFields(t *testing.T, dirs []string) map[string]bool {
	t.Helper()
	args := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}\t{{.Dir}}\t{{join .GoFiles \" \"}}"}
	for _, dir := range dirs {
		args = append(args, "../../"+dir)
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	exports, sources := map[string]string{}, map[string][]string{}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		exports[f[0]] = f[1]
		if _, dir, ours := strings.Cut(f[0], "/proa/ignition/"); ours {
			for _, name := range strings.Fields(f[3]) {
				sources[dir] = append(sources[dir], filepath.Join(f[2], name))
			}
		}
	}
	fset := token.NewFileSet()
	read := map[string]bool{}
	imports := importer.ForCompiler(fset, "gc", func(name string) (io.ReadCloser, error) { return os.Open(exports[name]) })
	for _, dir := range dirs {
		var files []*ast.File
		for _, name := range sources[dir] {
			f, err := parser.ParseFile(fset, name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
		if _, err := (&types.Config{Importer: imports}).Check(dir, fset, files, info); err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, s := range info.Selections {
			if s.Kind() == types.FieldVal {
				read[owner(s)] = true
			}
		}
	}
	return read
}

// owner is the field that a selection ends at, with the type that declares it: x.Path of a File is Node.Path. It is "" for a field of
// another package.
func owner(s *types.Selection) string {
	at := s.Recv()
	for n, i := range s.Index() {
		if p, ok := at.Underlying().(*types.Pointer); ok {
			at = p.Elem()
		}
		field := at.Underlying().(*types.Struct).Field(i)
		if n < len(s.Index())-1 {
			at = field.Type()
			continue
		}
		if named, ok := types.Unalias(at).(*types.Named); ok && named.Obj().Pkg() != nil && named.Obj().Pkg().Path() == specification {
			return named.Obj().Name() + "." + field.Name()
		}
	}
	return ""
}
