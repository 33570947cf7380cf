// Package tooltree runs programs out of the tools tree: the pinned Debian packages of manifests/tools.lock.json, unpacked in the
// cache by `image-builder tools`.
//
// Nothing of the tree is installed, so every host runs the same bytes. A dynamic program is started through the tree's own
// loader (ld.so(8)), which is told to look for libraries in the tree only; a static one is started as it is. What the
// loader cannot redirect are absolute paths inside programs: data files are passed by option or environment, see Command.
//
// Scripts are refused: their interpreter would be the host's.
//
// The tree of the judges is a second one, of manifests/judges.lock.json (`image-builder tools judges`): engines of containers and the like, for
// tests of the runtime. Those of its programs that want to be at home, with their files at fixed paths, run in a Room.
package tooltree

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/proa-os/proa/internal/arch"
)

// Tree is an unpacked tools tree.
type Tree struct {
	dir     string    // absolute, without symbolic links
	host    arch.Arch // the build host's, whatever image is built
	libPath string    // value of --library-path
}

// CacheDir returns $PROA_CACHE, or proa in the user's cache directory. It need not exist.
func CacheDir() (string, error) {
	if dir := os.Getenv("PROA_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache: %w; set PROA_CACHE", err)
	}
	return filepath.Join(dir, "proa"), nil
}

// Current returns the symbolic link in a cache that points to the tools tree in use.
func Current(cacheDir string) string { return filepath.Join(cacheDir, "tools", "current") }

// CurrentJudges returns the link to the tree of the judges (manifests/judges.toml).
func CurrentJudges(cacheDir string) string { return filepath.Join(cacheDir, "judges", "current") }

// Open returns the tree $PROA_TOOLS or, by default, the current one of the cache. The error wraps fs.ErrNotExist if there is none.
func Open() (*Tree, error) { return openCurrent("PROA_TOOLS", Current, "image-builder tools") }

// OpenJudges returns the tree of the judges: $PROA_JUDGES_TREE or, by default, the current one of the cache. The error wraps fs.ErrNotExist if
// there is none.
func OpenJudges() (*Tree, error) {
	return openCurrent("PROA_JUDGES_TREE", CurrentJudges, "image-builder tools judges")
}

func openCurrent(variable string, current func(cacheDir string) string, maker string) (*Tree, error) {
	if dir := os.Getenv(variable); dir != "" {
		return openDir(dir, maker)
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, fmt.Errorf("open tools tree: %w", err)
	}
	return openDir(current(cache), maker)
}

// OpenDir returns the tree in dir.
func OpenDir(dir string) (*Tree, error) { return openDir(dir, "image-builder tools") }

// openDir names the command that makes the tree.
func openDir(dir, maker string) (*Tree, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return nil, fmt.Errorf("open tools tree: %w; make it with %s", err, maker)
	}
	host, err := arch.Host()
	if err != nil {
		return nil, fmt.Errorf("open tools tree: %w", err)
	}
	t := &Tree{dir: abs, host: host}
	if _, err := os.Stat(t.Path(host.Loader)); err != nil {
		return nil, fmt.Errorf("open tools tree: %s has no programs for this host, which is %s: %w; make it anew with %s", abs, host.Debian, err, maker)
	}
	dirs, err := libraryDirs(t.Path(host.LibDir()))
	if err != nil {
		return nil, fmt.Errorf("open tools tree: %w", err)
	}
	t.libPath = strings.Join(dirs, ":")
	return t, nil
}

// libraryDirs returns root and the directories below it that hold shared libraries (private ones such as systemd's).
func libraryDirs(root string) ([]string, error) {
	dirs := []string{root}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		dir := filepath.Dir(path)
		if !d.IsDir() && strings.HasPrefix(name, "lib") && strings.Contains(name, ".so") && dirs[len(dirs)-1] != dir && dir != root {
			dirs = append(dirs, dir)
		}
		return nil
	})
	slices.Sort(dirs[1:])
	return slices.Compact(dirs), err
}

// Dir returns the root of the tree.
func (t *Tree) Dir() string { return t.dir }

// Path returns the absolute path of a file in the tree, given relative to its root. Whether it exists is not checked.
func (t *Tree) Path(rel string) string { return filepath.Join(t.dir, filepath.FromSlash(rel)) }

// Command returns a command that runs a program of the tree's usr/bin or usr/sbin, as exec.CommandContext does; a program that is not
// there, or a script, makes Run fail. The environment is the caller's without what steers a loader, with LC_ALL=C.UTF-8 and TZ=UTC, and
// with the variables by which qemu and mke2fs find their files in the tree. qemu's firmware is found by
// "-L <tree>/usr/share/qemu -L <tree>/usr/share/seabios".
func (t *Tree) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	argv, err := t.argv(program)
	if err != nil {
		cmd := exec.CommandContext(ctx, program)
		cmd.Err = err
		return cmd
	}
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], args...)...)
	cmd.Env = t.environ(os.Environ())
	return cmd
}

func (t *Tree) argv(program string) ([]string, error) {
	file, err := t.find(program)
	if err != nil {
		return nil, err
	}
	dynamic, err := hasInterpreter(file)
	if err != nil {
		return nil, fmt.Errorf("run %s of the tools tree: %w", program, err)
	}
	if !dynamic {
		return []string{file}, nil
	}
	return []string{t.Path(t.host.Loader), "--inhibit-cache", "--library-path", t.libPath, "--argv0", program, file}, nil
}

func (t *Tree) find(program string) (string, error) {
	if program == "" || strings.ContainsRune(program, '/') {
		return "", fmt.Errorf("run %q of the tools tree: expected a name without a path", program)
	}
	for _, dir := range []string{"usr/bin", "usr/sbin"} {
		file := t.Path(filepath.Join(dir, program))
		if fi, err := os.Stat(file); err == nil && fi.Mode().IsRegular() {
			return file, nil
		}
	}
	return "", fmt.Errorf("run %s: the tools tree %s has no such program: add its package to manifests/tools.toml or judges.toml: %w",
		program, t.dir, fs.ErrNotExist)
}

// hasInterpreter reports whether an ELF program names a loader (PT_INTERP): only then can it be run by one.
func hasInterpreter(file string) (bool, error) {
	f, err := elf.Open(file)
	var format *elf.FormatError
	if errors.As(err, &format) {
		return false, fmt.Errorf("%s is not an ELF program; scripts are not run", file)
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }), nil
}

func (t *Tree) environ(host []string) []string {
	env := slices.DeleteFunc(slices.Clone(host), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "GLIBC_") || strings.HasPrefix(name, "LC_") || name == "LANG" || name == "TZ"
	})
	return append(env,
		"LC_ALL=C.UTF-8",
		"TZ=UTC",
		"QEMU_MODULE_DIR="+t.Path(t.host.LibDir()+"/qemu"),
		"MKE2FS_CONFIG="+t.Path("etc/mke2fs.conf"),
	)
}
