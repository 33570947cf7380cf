package pair

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/internal/digest"
)

// checkout copies the repository into dir, as the variant changes it, and returns it with the sum of what an image is made of.
func (v variant) checkout(repository, dir string) (string, digest.SHA256, error) {
	sum := sha256.New()
	err := filepath.WalkDir(repository, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(repository, name)
		if err != nil {
			return err
		}
		switch {
		case rel == ".":
			return os.MkdirAll(dir, 0o755)
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"out", "docs", "qemu-tests"}, rel)):
			return fs.SkipDir
		case d.IsDir():
			return os.Mkdir(filepath.Join(dir, rel), 0o755)
		case !d.Type().IsRegular() && d.Type() != fs.ModeSymlink || strings.HasSuffix(rel, "_test.go") || elsewhere(rel):
			return nil
		}
		b, mode, err := v.file(rel, name, d.Type())
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %v %d\n%s", rel, mode, len(b), b)
		if mode&fs.ModeSymlink != 0 {
			return os.Symlink(string(b), filepath.Join(dir, rel))
		}
		return os.WriteFile(filepath.Join(dir, rel), b, mode.Perm())
	})
	if err != nil {
		return "", digest.SHA256{}, fmt.Errorf("copy checkout: %w", err)
	}
	return dir, digest.SHA256(sum.Sum(nil)), nil
}

// elsewhere reports whether no image depends on a file of manifests.
func elsewhere(rel string) bool {
	name, ok := strings.CutPrefix(filepath.ToSlash(rel), "manifests/")
	return ok && (strings.HasPrefix(name, "debian.") || strings.HasPrefix(name, "peers."))
}

// file returns a file of the checkout as the variant has it, or a link's target.
func (v variant) file(rel, name string, kind fs.FileMode) ([]byte, fs.FileMode, error) {
	if kind == fs.ModeSymlink {
		target, err := os.Readlink(name)
		return []byte(target), kind, err
	}
	fi, err := os.Stat(name)
	if err != nil {
		return nil, 0, err
	}
	b, err := os.ReadFile(name)
	if err == nil && rel == filepath.Join("manifests", "image.lock.json") {
		b, err = v.lock(b)
	}
	for _, c := range v.changes {
		if err == nil {
			b, err = c.apply(filepath.ToSlash(rel), b)
		}
	}
	return b, fi.Mode(), err
}

// lock replaces packages of a lock.
func (v variant) lock(b []byte) ([]byte, error) {
	l, err := lock.Parse(b)
	if err != nil {
		return nil, err
	}
	known, err := packages()
	if err != nil {
		return nil, err
	}
	kernel := regexp.MustCompile(`^linux-image-[0-9].*`)
	for _, name := range v.packages {
		p, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("packages.json has no %s", name)
		}
		same := func(o lock.Package) bool {
			return o.Name == p.Name || kernel.MatchString(o.Name) && kernel.MatchString(p.Name)
		}
		i := slices.IndexFunc(l.Packages, same)
		if i < 0 {
			return nil, fmt.Errorf("the image's lock has no %s to be replaced", p.Name)
		}
		l.Packages[i] = p
	}
	slices.SortFunc(l.Packages, func(a, b lock.Package) int { return strings.Compare(a.Name, b.Name) })
	return l.Marshal()
}

// A change is lines that are put behind a line of a file.
type change struct{ file, behind, lines string }

// own is a few lines in each of our programs; shared is a few in what most of them are made of, so that all code behind it moves.
func own() []change {
	const early = "\tif len(os.Args) > 4096 {\n\t\tos.Stderr.WriteString(\"too many arguments\\n\")\n\t\tos.Exit(2)\n\t}\n"
	list := []change{{"init/cmd/factory-reset/main.go", "func run(args []string, uid int, stdout, stderr io.Writer) int {\n", early}}
	for _, p := range []string{"update-engine/cmd/update-engine", "update-engine/cmd/updatectl", "ignition/cmd/ignition", "runtime/cmd/containerctl",
		"runtime/cmd/oci-runtime", "init/cmd/init"} {
		list = append(list, change{p + "/main.go", "func main() {\n", early})
	}
	return list
}

func shared() []change {
	return []change{{"internal/digest/digest.go", "func Parse(s string) (SHA256, error) {\n",
		"\tif len(s) > 4096 {\n\t\treturn SHA256{}, fmt.Errorf(\"parse sha256: found %d characters\", len(s))\n\t}\n"}}
}

func (c change) apply(rel string, b []byte) ([]byte, error) {
	if rel != c.file {
		return b, nil
	}
	if bytes.Count(b, []byte(c.behind)) != 1 {
		return nil, fmt.Errorf("change %s: expected the line %q once", rel, c.behind)
	}
	return bytes.Replace(b, []byte(c.behind), []byte(c.behind+c.lines), 1), nil
}

func runBuilder(ctx context.Context, o Options, checkout, version, out string) error {
	builder, err := filepath.Abs(o.Builder)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, builder, "build", "--version", version, "--out", out, "--no-qcow2")
	cmd.Dir = checkout
	if text, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("image-builder: %w\n%s", err, text[max(0, len(text)-4000):]), context.Cause(ctx))
	}
	return nil
}
