package archtest

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/proa-os/proa"

// components never import each other: they meet in internal/ types and in bytes described in docs/formats.md, so that
// each can be replaced, and so that nothing on the machine drags the builder along.
var components = []string{"image-builder", "update-engine", "init", "ignition", "runtime"}

// onMachine are the programs of the root image and the initramfs.
var onMachine = []string{
	"./init/cmd/init", "./init/cmd/factory-reset", "./init/cmd/nextroot", "./ignition/cmd/ignition", "./runtime/cmd/oci-runtime", "./runtime/cmd/containerctl",
	"./runtime/cmd/quadlet-generator",
	"./update-engine/cmd/update-engine", "./update-engine/cmd/updatectl",
}

// forbidden says which packages a program must not link, and why.
var forbidden = []struct {
	programs []string
	packages []string
	reason   string
}{
	{[]string{"./init/cmd/init"}, []string{"net", "net/http", "crypto/tls", "os/exec", "os/user"},
		"/init runs before verity guards anything: no network code, no other programs but the verified root's, and small"},
	{[]string{"./runtime/cmd/oci-runtime"}, []string{"net/http", "crypto/tls"},
		"the program that starts containers stays small and quick to start; it never talks to a network"},
	{[]string{"./runtime/cmd/quadlet-generator"}, []string{"net", "net/http", "crypto/tls", "os/exec", module + "/runtime/store"},
		"the generator runs before every unit of every boot: small, quick, and it talks to nobody"},
	{onMachine, []string{module + "/image-builder/..."},
		"nothing on the machine builds images"},
	{onMachine, []string{module + "/update-engine/squeeze", module + "/update-engine/bzip2"},
		"machines unpack payloads and never pack them"},
	{[]string{"./update-engine/cmd/update-engine", "./update-engine/cmd/updatectl"}, []string{"github.com/theupdateframework/...", "google.golang.org/protobuf/..."},
		"the update agent is small and starts a process for each file: update-engine/tuf reads metadata in a tenth of the code"},
	{onMachine, []string{"testing", "gotest.tools/v3/..."},
		"test code does not ship"},
}

type pkg struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	GoFiles      []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,Deps,GoFiles"}, args...)...)
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as the image's programs are built
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var ps []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	return ps
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// component returns the first element of a package's path in this module: "internal", "init", ...; empty for others'.
func component(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	c, _, _ := strings.Cut(rest, "/")
	return c
}

func TestComponentsDoNotImportEachOther(t *testing.T) {
	for _, p := range list(t, "./...") {
		from := component(p.ImportPath)
		for _, imp := range append(append(p.Imports, p.TestImports...), p.XTestImports...) {
			to := component(imp)
			if to == "" || to == from || to == "internal" {
				continue
			}
			switch {
			case from == "internal":
				t.Errorf("%s imports %s: internal packages import no component, or every component would import it too", p.ImportPath, imp)
			case from == "qemu-tests":
				// The stories drive whole machines and may use any component's test helpers.
			default:
				for _, c := range components {
					if to == c {
						t.Errorf("%s imports %s: components meet in internal/ and in documented bytes, not in each other's code", p.ImportPath, imp)
					}
				}
			}
		}
	}
}

func TestNothingImportsCommands(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, imp := range p.Imports {
			if component(imp) != "" && strings.Contains(imp, "/cmd/") {
				t.Errorf("%s imports %s: imports run from cmd to packages, never back", p.ImportPath, imp)
			}
		}
	}
}

func TestForbiddenLinks(t *testing.T) {
	for _, f := range forbidden {
		for _, prog := range f.programs {
			for _, dep := range list(t, prog)[0].Deps {
				for _, bad := range f.packages {
					prefix, tree := strings.CutSuffix(bad, "/...")
					if dep == bad || tree && (dep == prefix || strings.HasPrefix(dep, prefix+"/")) {
						t.Errorf("%s links %s: %s", prog, dep, f.reason)
					}
				}
			}
		}
	}
}

// A package's doc comment is where a newcomer starts; a command's is its manual page.
func TestPackagesHaveDocs(t *testing.T) {
	for _, p := range list(t, "./...") {
		if len(p.GoFiles) == 0 {
			continue
		}
		documented := false
		for _, f := range p.GoFiles {
			a, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || a.Doc != nil && len(a.Doc.Text()) > 30
		}
		if !documented {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// Component folders explain themselves in README.md and hold no Go files: init and runtime cannot be package names.
func TestComponentFolders(t *testing.T) {
	for _, c := range append(components, "qemu-tests") {
		if _, err := os.Stat(filepath.Join(root(t), c, "README.md")); err != nil {
			t.Errorf("%v", err)
		}
		if c == "qemu-tests" {
			continue
		}
		if m, _ := filepath.Glob(filepath.Join(root(t), c, "*.go")); len(m) > 0 {
			t.Errorf("%s: Go files beside the packages: %v", c, m)
		}
	}
}

// Package names that say nothing collect everything.
func TestNoDrawerPackages(t *testing.T) {
	drawers := map[string]bool{"util": true, "utils": true, "common": true, "helper": true, "helpers": true, "base": true,
		"core": true, "types": true, "manager": true, "lib": true, "misc": true}
	for _, p := range list(t, "./...") {
		if name := filepath.Base(p.ImportPath); drawers[name] {
			t.Errorf("%s: name the package by what it does", p.ImportPath)
		}
	}
}

// Registries' host names and machines' paths change; the repository outlives them. The builder finds its mirror in the
// host's apt sources.
func TestNoHostNames(t *testing.T) {
	words := []string{"deb.debian" + ".org", "security.debian" + ".org", "proxy.golang" + ".org", "sum.golang" + ".org", "registry.npmjs" + ".org"}
	err := fs.WalkDir(os.DirFS(root(t)), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == ".git" || name == "out" {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || name == "go.sum" {
			return nil
		}
		b, err := os.ReadFile(filepath.Join(root(t), name))
		if err != nil {
			return err
		}
		for _, w := range words {
			if strings.Contains(string(b), w) {
				t.Errorf("%s names the host %s", name, w)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A test of provisioning that cannot check something ends by testenv.Missing: where all is required, nothing is left out in silence.
func TestNothingIsSkipped(t *testing.T) {
	dir := filepath.Join(root(t), "ignition")
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "Skip") {
				if x, ok := s.X.(*ast.Ident); ok && (x.Name == "t" || x.Name == "tb" || x.Name == "b") {
					t.Errorf("%s: %s.%s: use testenv.Missing", fset.Position(n.Pos()), x.Name, s.Sel.Name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every direct dependency is argued for in one line, and nothing else is listed.
func TestDependenciesAreArgued(t *testing.T) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(root(t), "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if listed := strings.Contains(string(doc), "| "+r.Path+" | "); listed == r.Indirect {
			t.Errorf("docs/dependencies.md: %s: listed %v, direct dependency %v", r.Path, listed, !r.Indirect)
		}
	}
}
