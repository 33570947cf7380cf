package wiring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/link"
	"github.com/proa-os/proa/runtime/network"
)

// nsfs is the magic number of the file system of namespaces, linux/magic.h.
const nsfs = 0x6e736673

// Up makes a namespace that needs no process, or changes the one there is, and returns its path.
func (w *Wiring) Up(ctx context.Context, name string, want Wanted) (string, error) {
	h, err := w.hold()
	if err != nil {
		return "", err
	}
	defer h.release()
	owner, path := network.NamespacePrefix+name, filepath.Join(w.Namespaces, name)
	if e := h.endpoints[owner]; e != nil && e.Ready && h.mounted(name) {
		ns, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer ns.Close()
		if err := h.set(ctx, owner, ns, want, false); err != nil {
			return "", fmt.Errorf("namespace %s: %w", name, err)
		}
		return path, nil
	}
	ns, err := h.mount(owner, name, want)
	if err != nil {
		return "", fmt.Errorf("namespace %s: %w", name, err)
	}
	defer ns.Close()
	if err := h.set(ctx, owner, ns, want, true); err != nil {
		return "", errors.Join(fmt.Errorf("namespace %s: %w", name, err), h.unmount(name))
	}
	return path, nil
}

// mount makes the namespace and the file that holds it; the record comes first, so that neither is ever without a name.
func (h *held) mount(owner, name string, want Wanted) (*os.File, error) {
	if err := h.unmount(name); err != nil {
		return nil, err
	}
	if err := h.record(&network.Endpoint{Owner: owner, Ports: want.Ports}); err != nil {
		return nil, err
	}
	ns, err := link.NewNamespace()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(h.Namespaces, name)
	err = os.MkdirAll(h.Namespaces, 0o711)
	if err == nil {
		err = os.WriteFile(path, nil, 0o600)
	}
	if err == nil {
		err = unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), path, "", unix.MS_BIND, "")
	}
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("hold the namespace at %s: %w", path, err)
	}
	return ns, nil
}

// mounted reports whether the name holds a namespace.
func (w *Wiring) mounted(name string) bool {
	var st unix.Statfs_t
	return unix.Statfs(filepath.Join(w.Namespaces, name), &st) == nil && st.Type == nsfs
}

// unmount lets a namespace go, however often it is mounted there.
func (w *Wiring) unmount(name string) error {
	path := filepath.Join(w.Namespaces, name)
	for w.mounted(name) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("let namespace %s go: %w", name, err)
		}
	}
	return remove(path)
}

// sweepNamespaces lets namespaces go that have no record.
func (h *held) sweepNamespaces(owner string) error {
	names, err := os.ReadDir(h.Namespaces)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		o := network.NamespacePrefix + n.Name()
		if h.endpoints[o] == nil && o != owner {
			if err := h.unmount(n.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}
