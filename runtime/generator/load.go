package generator

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/proa-os/proa/runtime/quadlet"
)

// Bounds of what is looked at: far more than anybody declares, and nothing that keeps a machine from booting.
const (
	maxDepth = 16
	maxDirs  = 1000
	maxFiles = 10000
)

// a tree is what lies in the directories of declarations.
type tree struct {
	files   []string            // paths of declarations, the ones that decide first
	dropIns map[string][]string // directories of drop-ins by name, in the same order
	seen    map[[2]uint64]bool  // directories, by device and inode
}

// load reads all declarations with their drop-ins.
func load(dirs []string) []*quadlet.File {
	t := &tree{dropIns: make(map[string][]string), seen: make(map[[2]uint64]bool)}
	for _, d := range dirs {
		t.walk(d, 0)
	}
	var out []*quadlet.File
	taken := make(map[string]bool)
	for _, path := range t.files {
		name := filepath.Base(path)
		if taken[name] {
			continue
		}
		taken[name] = true
		text, err := read(path)
		if errors.Is(err, errMasked) {
			continue
		}
		f := quadlet.Parse(path, text)
		if err != nil {
			f = quadlet.Broken(path, err)
		}
		t.merge(f)
		out = append(out, f)
	}
	return out
}

// walk looks through a directory, and then through those in it.
func (t *tree) walk(dir string, depth int) {
	st, err := os.Stat(dir)
	if err != nil || !st.IsDir() {
		return
	}
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		id := [2]uint64{uint64(s.Dev), s.Ino}
		if t.seen[id] || depth > maxDepth || len(t.seen) >= maxDirs {
			return
		}
		t.seen[id] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	var below []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			st, err := os.Stat(path)
			isDir = err == nil && st.IsDir()
		}
		switch {
		case quadlet.Known(e.Name()) && len(t.files) < maxFiles:
			t.files = append(t.files, path)
		case isDir && strings.HasSuffix(e.Name(), ".d"):
			t.dropIns[e.Name()] = append(t.dropIns[e.Name()], path)
		case isDir && !(depth == 0 && e.Name() == "users"):
			below = append(below, path)
		}
	}
	for _, path := range below {
		t.walk(path, depth+1)
	}
}

// merge adds the drop-ins of a file, by their names; of those with one name the most particular.
func (t *tree) merge(f *quadlet.File) {
	paths := make(map[string]string)
	var names []string
	for _, d := range quadlet.DropIns(f.Name) {
		for _, dir := range t.dropIns[d] {
			entries, err := os.ReadDir(dir)
			if err != nil {
				continue
			}
			for _, e := range entries {
				if filepath.Ext(e.Name()) == ".conf" && paths[e.Name()] == "" {
					paths[e.Name()] = filepath.Join(dir, e.Name())
					names = append(names, e.Name())
				}
			}
		}
	}
	slices.Sort(names)
	for _, n := range names {
		text, err := read(paths[n])
		switch {
		case errors.Is(err, errMasked):
		case err != nil:
			f.Merge(quadlet.Broken(paths[n], err))
		default:
			f.Merge(quadlet.Parse(paths[n], text))
		}
	}
}

// errMasked is what a link to /dev/null says: there is no such file, whatever other directories hold.
var errMasked = errors.New("masked")

// read reads a regular file of a bounded size.
func read(path string) ([]byte, error) {
	if target, err := filepath.EvalSymlinks(path); err == nil && target == os.DevNull {
		return nil, errMasked
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would block for ever
	if err != nil {
		return nil, unwrap(err)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, unwrap(err)
	case st.IsDir():
		return nil, errors.New("is a directory: expected a file")
	case !st.Mode().IsRegular():
		return nil, errors.New("is no regular file")
	case st.Size() > quadlet.MaxSize:
		return nil, fmt.Errorf("has %d bytes: expected at most %d", st.Size(), quadlet.MaxSize)
	}
	return io.ReadAll(io.LimitReader(f, quadlet.MaxSize+1))
}

// unwrap leaves the path out, which the problem has already.
func unwrap(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("cannot be read: %w", p.Err)
	}
	return err
}
