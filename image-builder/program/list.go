package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/digest"
)

// A Listing is what go says about programs before they are linked: enough to know whether one would come out the same.
type Listing struct {
	GoVersion string
	// Inputs describes, for each package as it was asked for, all that its program is made of: the toolchain, the flags, and the build
	// ids of the packages it links. Go derives a build id from a package's source, embedded files and imports.
	Inputs map[string]string

	began time.Time
	dirs  []string // directories of this module's packages
	files []string // files embedded from below them, and go.mod
}

// listed is what List reads of go list's answer.
type listed struct {
	ImportPath string
	Dir        string
	BuildID    string
	Match      []string // the patterns that this package was asked for by
	Deps       []string
	EmbedFiles []string
	Module     *struct{ Main bool }
}

// List asks go about packages (as ./init/cmd/init) of the module at dir. Packages that have changed are compiled by it, so an error
// may be the compiler's.
func List(ctx context.Context, dir, arch string, packages []string) (*Listing, error) {
	l := &Listing{Inputs: map[string]string{}, began: time.Now(), files: []string{filepath.Join(dir, "go.mod")}}
	var err error
	if l.GoVersion, err = Version(ctx, dir); err != nil {
		return nil, err
	}
	args := append([]string{"list", "-deps", "-export", "-json=ImportPath,Dir,BuildID,Match,Deps,EmbedFiles,Module"}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Dir = dir
	cmd.Env = environment(arch)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("compile programs: %w\n%s", err, strings.TrimSpace(stderr.String()))
	}
	all := map[string]listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("list programs: %w", err)
		}
		all[p.ImportPath] = p
		if p.Module != nil && p.Module.Main {
			l.dirs = append(l.dirs, p.Dir)
			for _, f := range p.EmbedFiles {
				l.files = append(l.files, filepath.Join(p.Dir, f))
			}
		}
	}
	for _, name := range packages {
		if l.Inputs[name], err = l.describe(name, arch, all); err != nil {
			return nil, fmt.Errorf("list programs: %w", err)
		}
	}
	return l, nil
}

func (l *Listing) describe(name, arch string, all map[string]listed) (string, error) {
	for _, p := range all {
		if !slices.Contains(p.Match, name) {
			continue
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s %q %q\n", l.GoVersion, arch, flags, linkFlags)
		for _, path := range append(slices.Clone(p.Deps), p.ImportPath) {
			id := all[path].BuildID
			if id == "" && path != "unsafe" {
				return "", fmt.Errorf("%s: go knows no build id of %s", name, path)
			}
			fmt.Fprintf(&b, "%s %s\n", path, id)
		}
		return b.String(), nil
	}
	return "", fmt.Errorf("go does not answer for %s", name)
}

// Key is the hash of a program's inputs.
func (l *Listing) Key(name string) digest.SHA256 { return digest.Of([]byte(l.Inputs[name])) }

// Changed names a source file that was written to since the listing began, or returns "". What was compiled meanwhile may be of
// another source than the listing says.
func (l *Listing) Changed() (string, error) {
	files := slices.Clone(l.files)
	for _, dir := range l.dirs {
		files = append(files, dir)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return "", fmt.Errorf("look for changed sources: %w", err)
		}
		for _, e := range entries {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	const tick = 20 * time.Millisecond // the clock that stamps files is that much behind
	for _, f := range files {
		fi, err := os.Lstat(f)
		if errors.Is(err, os.ErrNotExist) || err == nil && !fi.ModTime().Before(l.began.Add(-tick)) {
			return f, nil
		}
		if err != nil {
			return "", fmt.Errorf("look for changed sources: %w", err)
		}
	}
	return "", nil
}
