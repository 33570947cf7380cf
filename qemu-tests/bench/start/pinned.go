package start

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/image-builder/tools"
	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/tooltree"
)

// OpenPeers unpacks the pinned peers of o.Manifests in the cache.
func OpenPeers(ctx context.Context, o Options) (*tooltree.Tree, error) {
	cache, err := tooltree.CacheDir()
	if err != nil {
		return nil, err
	}
	dir, err := tools.Run(ctx, tools.Options{Manifest: filepath.Join(o.Manifests, "peers.toml"), LockFile: filepath.Join(o.Manifests, "peers.lock.json"),
		CacheDir: filepath.Join(cache, "bench", "peers"), APT: o.APT, Progress: os.Stderr})
	if err != nil {
		return nil, err
	}
	return tooltree.OpenDir(dir)
}

// pinned returns programs of the tree. Started by the tree's loader they would find that in /proc/self/exe, which they execute again,
// and some clear their environment; so the tree's loader and libraries are laid over the host's, in the bench's own mount namespace.
func pinned(ctx context.Context, o Options, names []string) ([]peer, error) {
	tree, err := OpenPeers(ctx, o)
	if err != nil {
		return nil, err
	}
	host, err := arch.Host()
	if err != nil {
		return nil, err
	}
	if err := layOver(tree, host); err != nil {
		return nil, err
	}
	var out []peer
	for _, name := range names {
		p := peer{name: name, program: tree.Path("usr/bin/" + name)}
		st, err := os.Stat(p.program)
		if err != nil {
			p.program = tree.Path("usr/sbin/" + name)
			st, err = os.Stat(p.program)
		}
		if err != nil {
			return nil, err
		}
		if p.version, err = p.ask(ctx); err != nil {
			return nil, err
		}
		p.size = float64(st.Size()) / 1e6
		out = append(out, p)
	}
	return out, nil
}

// layOver makes the tree's libraries come before the host's. This program is static and needs neither.
func layOver(tree *tooltree.Tree, host arch.Arch) error {
	libs, err := filepath.EvalSymlinks("/" + host.LibDir())
	if err != nil {
		return err
	}
	loader, err := filepath.EvalSymlinks("/" + host.Loader)
	if err != nil {
		return err
	}
	ours, err := filepath.EvalSymlinks(tree.Path(host.Loader))
	if err != nil {
		return err
	}
	if err := unix.Mount("overlay", libs, "overlay", unix.MS_RDONLY, "lowerdir="+tree.Path(host.LibDir())+":"+libs); err != nil {
		return fmt.Errorf("lay the libraries of pinned peers over %s: %w", libs, err)
	}
	if filepath.Dir(loader) == libs {
		return nil // it came along
	}
	if err := unix.Mount(ours, loader, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("lay the loader of pinned peers over %s: %w", loader, err)
	}
	return nil
}

// ask returns the program's version.
func (p peer) ask(ctx context.Context) (string, error) {
	c := exec.CommandContext(ctx, p.program, "--version")
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w: %s", p.name, err, out)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	f := strings.Fields(line)
	if len(f) == 0 {
		return "", fmt.Errorf("%s --version: it says nothing", p.name)
	}
	return f[len(f)-1], nil
}
