// Package platform tells the machines of a disk image which platform they are on, and how they come to their config: it puts kernel
// arguments (package internal/firstboot) on the ESP, beside the boot programs of all releases that will ever be there.
//
//	loader/addons/platform.addon.efi   for UEFI, an addon of systemd-stub (package uki)
//	grub/platform.env                  for a BIOS, a block that GRUB reads (package grubenv)
//
// Nothing else is changed: not the boot programs, not the slots, not the partition tables. Neither provisioning nor the update agent writes
// these files. The ESP is written anew from its own files, so the result depends on the image and the words alone, whatever words were there
// before, and without words it is the image that was built. A raw image stays sparse; a qcow2 image is compressed again.
//
// A file is replaced in one step when the new one is whole and on the disk.
package platform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/image-builder/grub"
	"github.com/proa-os/proa/image-builder/inspect"
	"github.com/proa-os/proa/image-builder/qcow2"
	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/cmdline"
	"github.com/proa-os/proa/internal/firstboot"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/uki"
)

// maxLine is what Linux takes: COMMAND_LINE_SIZE of x86 and arm64, with the final NUL.
const maxLine = 2047

// A Result is what an image says, and where. The JSON form is `image-builder platform --json`.
type Result struct {
	Platform  string   `json:"platform"`  // "" for none
	Arguments []string `json:"arguments"` // of the kernel, all that were put there
	Files     []File   `json:"files"`
}

// A File is an image file. One that said the same before is not written.
type File struct {
	Name    string `json:"file"`
	Format  string `json:"format"` // "raw" or "qcow2"
	Written bool   `json:"written"`
}

// Read returns what an image file, or the disk image of a release's directory, says.
func Read(name string) (*Result, error) {
	in, err := inspect.Open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	e, err := openESP(in)
	if err != nil {
		return nil, fmt.Errorf("read the platform of %s: %w", in.Name, err)
	}
	words, err := e.words()
	if err != nil {
		return nil, fmt.Errorf("read the platform of %s: %w", in.Name, err)
	}
	return &Result{firstboot.Platform(words), words, []File{{Name: in.Name, Format: in.Format}}}, nil
}

// Set has an image file say words (of firstboot.Words), or nothing if there are none. Of a release's directory it changes the disk images. With out,
// a file that is made or replaced, name stays as it is: out is a raw image, or qcow2 if its name ends so.
func Set(ctx context.Context, name string, words []string, out string) (*Result, error) {
	r := &Result{firstboot.Platform(words), append([]string{}, words...), nil}
	targets := []string{name}
	if fi, err := os.Stat(name); err == nil && fi.IsDir() && out == "" {
		targets = []string{filepath.Join(name, "disk.img")}
		if packed := filepath.Join(name, "disk.qcow2"); exists(packed) {
			targets = append(targets, packed)
		}
	}
	for _, t := range targets {
		f, err := set(ctx, t, words, out)
		if err != nil {
			return nil, fmt.Errorf("set the platform of %s: %w", t, err)
		}
		r.Files = append(r.Files, f)
	}
	return r, nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func set(ctx context.Context, name string, words []string, out string) (f File, err error) {
	in, err := inspect.Open(name)
	if err != nil {
		return f, err
	}
	defer in.Close()
	f = File{Name: in.Name, Format: in.Format, Written: true}
	if out != "" {
		f.Name, f.Format = out, "raw"
		if strings.HasSuffix(out, ".qcow2") {
			f.Format = "qcow2"
		}
	}
	fi, err := os.Stat(f.Name)
	if err == nil && !fi.Mode().IsRegular() {
		return f, fmt.Errorf("%s is not a regular file: write an image with its platform there, made with --out", f.Name)
	}
	e, err := openESP(in)
	if err != nil {
		return f, err
	}
	changed, err := e.set(words)
	if err != nil {
		return f, err
	}
	if !changed && out == "" {
		f.Written = false
		return f, nil
	}
	return f, replace(f.Name, f.Format, func(w *os.File) error { return e.writeDisk(ctx, w, in) }, in.Size)
}

// An esp is an image's ESP, in memory.
type esp struct {
	at, size int64 // of the partition, in bytes
	arch     arch.Arch
	options  fat.Options
	files    []fat.File
}

func openESP(in *inspect.Source) (*esp, error) {
	t, err := inspect.ReadTable(in, in.Size)
	if err != nil {
		return nil, fmt.Errorf("%w; expected a disk image, raw or qcow2", err)
	}
	p, err := t.Find("esp")
	if err != nil {
		return nil, err
	}
	root, err := t.Find("root-a")
	if err != nil {
		return nil, err
	}
	e := &esp{at: t.Offset(p), size: t.Size(p)}
	if e.arch, err = arch.OfRoot(string(root.TypeGUID)); err != nil {
		return nil, fmt.Errorf("partition root-a: %w", err)
	}
	f, err := fat.Open(io.NewSectionReader(in, e.at, e.size))
	if err == nil {
		e.options = f.Options()
		e.files, err = f.Files()
	}
	if err != nil {
		return nil, fmt.Errorf("partition esp: %w", err)
	}
	return e, nil
}

// find returns the place of a file. FAT does not tell upper from lower case.
func (e *esp) find(name string) int {
	return slices.IndexFunc(e.files, func(f fat.File) bool { return strings.EqualFold(f.Path, name) })
}

// content returns a file's bytes; fs.ErrNotExist if there is none.
func (e *esp) content(name string) ([]byte, error) {
	i := e.find(name)
	if i < 0 {
		return nil, fs.ErrNotExist
	}
	r, err := e.files[i].Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// words are those of the addon.
func (e *esp) words() ([]string, error) {
	b, err := e.content(firstboot.AddonFile)
	if errors.Is(err, fs.ErrNotExist) {
		return []string{}, nil
	}
	var line string
	if err == nil {
		line, err = uki.ReadAddon(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", firstboot.AddonFile, err)
	}
	return strings.Fields(line), nil
}

// set puts the words into both files, or takes the files away, and reports whether anything is not as it was.
func (e *esp) set(words []string) (changed bool, err error) {
	if err := e.check(words); err != nil {
		return false, err
	}
	var addon, block []byte
	if len(words) > 0 {
		if addon, err = uki.Addon(e.arch.PE, strings.Join(words, " ")); err != nil {
			return false, err
		}
	}
	config, err := e.content(grub.ConfigPath)
	switch {
	case errors.Is(err, fs.ErrNotExist) || len(words) == 0: // no GRUB, or nothing for it
	case err != nil:
		return false, err
	case !bytes.Contains(config, []byte("/"+grubenv.PlatformFile)):
		return false, fmt.Errorf("its GRUB does not read %s: expected an image of this release or a later one; build it anew", grubenv.PlatformFile)
	default:
		if block, err = grubenv.Arguments(grubenv.PlatformFile, words); err != nil {
			return false, err
		}
	}
	first, second := e.put(firstboot.AddonFile, addon), e.put(grubenv.PlatformFile, block)
	return first || second, nil
}

// put replaces a file, or takes it away if there is no content, and reports whether that changes anything.
func (e *esp) put(name string, content []byte) bool {
	old, err := e.content(name)
	if err != nil && content == nil || err == nil && content != nil && bytes.Equal(old, content) {
		return false
	}
	if i := e.find(name); i >= 0 {
		e.files = slices.Delete(e.files, i, i+1)
	}
	if content != nil {
		e.files = append(e.files, fat.BytesFile(name, content))
	}
	return true
}

// check refuses words beside which something on the ESP names another platform, or is too long already.
func (e *esp) check(words []string) error {
	for _, f := range e.files {
		dir, name := path.Split(strings.ToLower(f.Path))
		if strings.EqualFold(f.Path, firstboot.AddonFile) || dir != "efi/linux/" && dir != "loader/addons/" || !strings.HasSuffix(name, ".efi") {
			continue
		}
		b, err := e.content(f.Path)
		if err != nil {
			return err
		}
		line, err := uki.ReadAddon(b)
		if err != nil {
			continue // the loaders do not start it either
		}
		if length := len(line) + 1 + len(strings.Join(words, " ")); len(words) > 0 && length > maxLine {
			return fmt.Errorf("%d bytes of kernel arguments with those of %s: expected at most %d; leave some out", length, f.Path, maxLine)
		}
		var there []string
		for _, w := range cmdline.Parse(line).Words() {
			there = append(there, w.Key+"="+w.Value)
		}
		if other := firstboot.Platform(there); len(words) > 0 && other != "" && other != firstboot.Platform(words) {
			return fmt.Errorf("%s names the platform %s: two names are an error on the machine; build the image without that one", f.Path, other)
		}
	}
	return nil
}

// writeDisk writes the disk with this ESP to an empty file, which stays sparse.
func (e *esp) writeDisk(ctx context.Context, w *os.File, in *inspect.Source) error {
	if err := w.Truncate(in.Size); err != nil {
		return err
	}
	if err := errors.Join(copyData(ctx, w, in.ReaderAt, 0, e.at), copyData(ctx, w, in.ReaderAt, e.at+e.size, in.Size)); err != nil {
		return err
	}
	return fat.Write(io.NewOffsetWriter(w, e.at), e.options, e.files)
}

// copyData copies the bytes from one place to another that are not zeros. Holes of a file are not read.
func copyData(ctx context.Context, w io.WriterAt, r io.ReaderAt, from, to int64) error {
	const most = 64 << 10
	b, zeros := make([]byte, most), make([]byte, most)
	for at := from; at < to; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		next, err := qcow2.NextData(r, at)
		if err != nil {
			return err
		}
		if at = next; at >= to {
			break
		}
		// Up to the next multiple, so that blocks of zeros are found where the file system of the host has its own.
		b := b[:min(to-at, most-at%most)]
		if n, err := r.ReadAt(b, at); n < len(b) {
			return fmt.Errorf("read the disk: %d bytes at %d, expected %d: %w", n, at, len(b), err)
		}
		if !bytes.Equal(b, zeros[:len(b)]) {
			if _, err := w.WriteAt(b, at); err != nil {
				return err
			}
		}
		at += int64(len(b))
	}
	return nil
}

// replace makes or replaces a file by a raw image that write writes, of size bytes, in the given format. One that is there keeps its mode.
func replace(name, format string, write func(*os.File) error, size int64) error {
	mode := fs.FileMode(0o644)
	if fi, err := os.Stat(name); err == nil {
		mode = fi.Mode().Perm()
		if name, err = filepath.EvalSymlinks(name); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	raw, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		return err
	}
	defer raw.Close()
	if err := write(raw); err != nil {
		return err
	}
	done := raw.Name()
	if format == "qcow2" {
		done = filepath.Join(dir, "qcow2")
		if err := qcow2.Write(done, raw, size); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chmod(done, mode), sync(done)); err != nil {
		return err
	}
	return errors.Join(os.Rename(done, name), sync(filepath.Dir(name)))
}

// sync writes a file or a directory out.
func sync(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
