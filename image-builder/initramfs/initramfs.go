// Package initramfs makes the initramfs of a boot program: /init, mount points, a console, and the kernel modules that may have
// to stand before the root image.
//
// It is an uncompressed cpio archive (package cpio). Three lists tell /init what to load; the paths in them are absolute, in the
// order of loading, each after all it needs:
//
//	etc/proa/modules       one path a line: loaded on every machine
//	etc/proa/drivers       one driver a line: the paths of what it needs and of itself, then the patterns of the devices it is for,
//	                       as in modules.alias; everything is separated by one space
//	etc/proa/root-modules  one path a line, in the root image: loaded from there once it is mounted
//
// A path that ends in .ko.xz is a module as Debian ships it, which the kernel decompresses.
package initramfs

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/proa-os/proa/image-builder/cpio"
	"github.com/proa-os/proa/image-builder/kernel"
	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/image-builder/tree"
)

// The lists /init reads.
const (
	moduleList     = "etc/proa/modules"
	driverList     = "etc/proa/drivers"
	rootModuleList = "etc/proa/root-modules"
)

// Build returns the archive. init is the compiled /init.
func Build(k *kernel.Kernel, modules manifest.Modules, init string) ([]byte, error) {
	index, err := k.Index()
	if err != nil {
		return nil, err
	}
	l, err := newLists(index, modules, path.Join("/usr/lib/modules", k.Version))
	if err != nil {
		return nil, err
	}
	t, err := skeleton(l, init)
	if err != nil {
		return nil, err
	}
	for _, m := range l.plain {
		if err := addFile(t, l.stored[m], filepath.Join(k.ModulesDir(), m), 0o644); err != nil {
			return nil, err
		}
	}
	for _, m := range l.packed {
		if err := addFile(t, l.stored[m], k.Packed(m), 0o644); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	if err := cpio.Write(&b, t); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// skeleton is everything but the modules.
func skeleton(l *lists, init string) (*tree.Tree, error) {
	t := tree.New()
	for _, d := range []string{"dev", "proc", "sys", "run", "sysroot"} {
		if err := t.Add(tree.Entry{Path: d, Type: tree.Dir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	// The kernel opens it for /init before anything is mounted.
	if err := t.Add(tree.Entry{Path: "dev/console", Type: tree.Char, Mode: 0o600, Major: 5, Minor: 1}); err != nil {
		return nil, err
	}
	if err := addFile(t, "init", init, 0o755); err != nil {
		return nil, err
	}
	for name, lines := range map[string][]string{moduleList: l.always, driverList: l.drivers, rootModuleList: l.root} {
		text := strings.Join(lines, "\n")
		if text != "" {
			text += "\n"
		}
		if err := t.Add(tree.Entry{Path: name, Type: tree.File, Mode: 0o644, Size: int64(len(text)), Content: tree.Bytes(text)}); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func addFile(t *tree.Tree, p, name string, mode uint32) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	return t.Add(tree.Entry{Path: p, Type: tree.File, Mode: mode, Size: fi.Size(), Content: tree.HostFile(name)})
}

// lists are the lines of the three lists, and the modules of the archive as paths in the kernel's directory.
type lists struct {
	always, drivers, root []string
	plain, packed         []string
	stored                map[string]string // module -> its path in the archive
}

func newLists(index *kernel.Index, m manifest.Modules, rootDir string) (*lists, error) {
	l := &lists{stored: map[string]string{}}
	always, err := index.Order(m.Always)
	if err != nil {
		return nil, err
	}
	for _, p := range always {
		l.always = append(l.always, "/"+l.store(p, false))
	}
	for _, d := range m.Drivers {
		if err := l.addDriver(index, d, false); err != nil {
			return nil, err
		}
	}
	for _, d := range m.Packed {
		if err := l.addDriver(index, d, true); err != nil {
			return nil, err
		}
	}
	late, err := index.Order(slices.Concat(m.Always, m.Root))
	if err != nil {
		return nil, err
	}
	for _, p := range late {
		if !slices.Contains(always, p) {
			l.root = append(l.root, path.Join(rootDir, p))
		}
	}
	return l, nil
}

// store says where a module is in the archive; the first who asks decides how.
func (l *lists) store(p string, packed bool) string {
	if s, ok := l.stored[p]; ok {
		return s
	}
	s := path.Join("lib/modules", path.Base(p))
	if packed {
		s += ".xz"
		l.packed = append(l.packed, p)
	} else {
		l.plain = append(l.plain, p)
	}
	l.stored[p] = s
	return s
}

// addDriver adds a line of the driver list; what is built into the kernel needs none.
func (l *lists) addDriver(index *kernel.Index, name string, packed bool) error {
	order, err := index.Order([]string{name})
	if err != nil || len(order) == 0 {
		return err
	}
	aliases := index.Aliases(name)
	if len(aliases) == 0 {
		return fmt.Errorf("kernel module %q drives no device by itself: list it under initramfs.modules", name)
	}
	var words []string
	for _, p := range order {
		words = append(words, "/"+l.store(p, packed))
	}
	l.drivers = append(l.drivers, strings.Join(slices.Concat(words, aliases), " "))
	return nil
}
