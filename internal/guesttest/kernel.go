package guesttest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ulikunitz/xz"

	"github.com/proa-os/proa/internal/tooltree"
)

// Kernel is the kernel image of the tools tree.
func Kernel(tools *tooltree.Tree) (string, error) {
	kernels, err := filepath.Glob(tools.Path("boot/vmlinuz-*"))
	if err == nil && len(kernels) != 1 {
		err = fmt.Errorf("found %q, expected one; make the tree anew with image-builder tools", kernels)
	}
	if err != nil {
		return "", fmt.Errorf("find kernel in the tools tree %s: %w", tools.Dir(), err)
	}
	return kernels[0], nil
}

// A Module is a kernel module, ready to load.
type Module struct {
	Name    string // with underscores
	Content []byte
	File    string // it again, as Debian compressed it (.ko.xz)
}

// Modules are the named modules of the tools tree's kernel, each behind those it needs ("depends" in its .modinfo). One that
// the tree does not have must be built into the kernel.
func Modules(tools *tooltree.Tree, names ...string) ([]Module, error) {
	normal := strings.NewReplacer("-", "_")
	files, builtin := map[string]string{}, map[string]bool{}
	err := filepath.WalkDir(tools.Path("usr/lib/modules"), func(path string, d fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko.xz"); ok {
			files[normal.Replace(name)] = path
		}
		if err == nil && d.Name() == "modules.builtin" {
			list, rerr := os.ReadFile(path)
			for line := range strings.Lines(string(list)) {
				builtin[normal.Replace(strings.TrimSuffix(filepath.Base(strings.TrimSpace(line)), ".ko"))] = true
			}
			return rerr
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find kernel modules: %w", err)
	}
	var list []Module
	done := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		name = normal.Replace(name)
		if done[name] || builtin[name] {
			return nil
		}
		done[name] = true
		content, err := unxz(files[name])
		if err != nil {
			return fmt.Errorf("read kernel module %s: %w", name, err)
		}
		for _, need := range depends(content) {
			if err := add(need); err != nil {
				return err
			}
		}
		list = append(list, Module{name, content, files[name]})
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func depends(module []byte) []string {
	_, rest, ok := bytes.Cut(module, []byte("\x00depends="))
	if !ok {
		return nil
	}
	needs, _, _ := bytes.Cut(rest, []byte{0})
	return strings.FieldsFunc(string(needs), func(r rune) bool { return r == ',' })
}

func unxz(file string) ([]byte, error) {
	if file == "" {
		return nil, fmt.Errorf("the tools tree's kernel has none of this name: %w", fs.ErrNotExist)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := xz.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
