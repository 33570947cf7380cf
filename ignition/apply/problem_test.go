package apply

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// incomplete reports what in a file makes a problem of its own, or one that lacks a part: whoever reads a problem on a console at night needs to
// know what was expected, what is there and what to do.
func incomplete(fset *token.FileSet, f *ast.File) (found []string) {
	report := func(n ast.Node, what string) { found = append(found, fset.Position(n.Pos()).String()+": "+what) }
	empty := func(e ast.Expr) bool {
		lit, ok := e.(*ast.BasicLit)
		return ok && (lit.Value == `""` || lit.Value == "``")
	}
	name := func(e ast.Expr) string {
		if s, ok := e.(*ast.SelectorExpr); ok {
			return s.Sel.Name
		}
		if i, ok := e.(*ast.Ident); ok {
			return i.Name
		}
		return ""
	}
	for _, decl := range f.Decls {
		function, _ := decl.(*ast.FuncDecl)
		ast.Inspect(decl, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				keys := map[string]bool{}
				for _, e := range n.Elts {
					value := e
					if kv, ok := e.(*ast.KeyValueExpr); ok {
						keys[name(kv.Key)] = true
						value = kv.Value
					}
					if name(n.Type) == "Refusal" && empty(value) {
						report(n, "a refusal with an empty part")
					}
				}
				if name(n.Type) == "Refusal" && len(keys) > 0 && !(keys["What"] && keys["Expected"] && keys["Found"] && keys["Next"]) {
					report(n, "a refusal that lacks a part")
				}
				if name(n.Type) == "Problem" && (function == nil || function.Name.Name != "NewProblem") {
					report(n, "a problem that NewProblem has not made")
				}
			case *ast.CallExpr:
				if called := name(n.Fun); (called == "NewProblem" || called == "problem") && len(n.Args) == 4 {
					for _, arg := range n.Args {
						if empty(arg) {
							report(n, "a problem with an empty part")
						}
					}
				}
			}
			return true
		})
	}
	return found
}

func TestProblemsAreWhole(t *testing.T) {
	fset, problems := token.NewFileSet(), 0
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		for _, what := range incomplete(fset, f) {
			t.Error(what)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if i, ok := n.(*ast.Ident); ok && (i.Name == "NewProblem" || i.Name == "problem") {
				problems++
			}
			return true
		})
		return nil
	})
	if err != nil || problems < 40 {
		t.Errorf("found %d problems, %v", problems, err)
	}
}

// The rule itself: what it must find.
func TestRuleOfWholeProblems(t *testing.T) {
	for text, want := range map[string]int{
		`func f() error { return NewProblem("a", "b", "c", "d") }`:       0,
		`func f() error { return apply.NewProblem("a", "b", "c", "") }`:  1,
		`func f() error { return problem("a", "", c(), "d") }`:           1,
		`func f() error { return &apply.Problem{What: "a", Next: "d"} }`: 1,
		`var p = Problem{}`: 1,
		`func NewProblem() *Problem { return &Problem{} }`:                                    0,
		`func f() error { return &Refusal{Word: w, What: "a", Expected: "b", Found: "c"} }`:   1,
		`func f() error { return &partition.Refusal{1, "a", "b", c(), ""} }`:                  1,
		`func f() error { return &Refusal{What: "a", Expected: "b", Found: "c", Next: "d"} }`: 0,
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "x.go", "package x\n"+text, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := incomplete(fset, f); len(got) != want {
			t.Errorf("%s: got %q, want %d", text, got, want)
		}
	}
}

// An error that says no next step has one all the same.
func TestNextStep(t *testing.T) {
	for _, err := range []error{errors.New("x"), fs.ErrPermission, fs.ErrNotExist} {
		if NextStep(err) == "" {
			t.Errorf("%v: nothing to do", err)
		}
	}
}
