package reproduce

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/proa-os/proa/image-builder/diff"
	"github.com/proa-os/proa/image-builder/erofs"
	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/image-builder/inspect"
	"github.com/proa-os/proa/internal/uki"
)

// A Difference is the first thing that is not the same in two directories.
type Difference struct {
	File   string `json:"file"`            // of the directories
	Offset int64  `json:"offset"`          // of the first byte; -1 if one of them has no such file
	Inside string `json:"inside"`          // what the byte belongs to, as far as that can be told
	Why    string `json:"why"`             // in words
	Other  string `json:"other,omitempty"` // the first file inside that differs, if the byte itself is of no file
}

func (d *Difference) Error() string {
	s := d.File + ": " + d.Why
	if d.Offset >= 0 {
		s = fmt.Sprintf("%s: byte %d differs", d.File, d.Offset)
	}
	if d.Inside != "" {
		s += ", in " + d.Inside
	}
	if d.Other != "" {
		s += "; the first file that differs is " + d.Other
	}
	return s
}

// Compare compares all files of two directories and returns nil or the first difference. The order is that of cause and effect: what is
// in the root image comes before what is made of it.
func Compare(a, b string) (*Difference, error) {
	filesA, err := files(a)
	if err != nil {
		return nil, err
	}
	filesB, err := files(b)
	if err != nil {
		return nil, err
	}
	if len(filesA) == 0 {
		return nil, fmt.Errorf("compare builds: %s has no files", a)
	}
	all := maps.Clone(filesA)
	maps.Copy(all, filesB)
	order := []string{"tree.txt", "root.img", "boot.efi", "disk.img", "disk.qcow2"}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	for _, name := range order {
		switch {
		case !all[name]:
			continue
		case !filesA[name]:
			return &Difference{File: name, Offset: -1, Why: "only the second build made it"}, nil
		case !filesB[name]:
			return &Difference{File: name, Offset: -1, Why: "only the first build made it"}, nil
		}
		if d, err := compareFile(a, b, name); d != nil || err != nil {
			return d, err
		}
	}
	return nil, nil
}

func files(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("compare builds: %w", err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			return nil, fmt.Errorf("compare builds: %s is not a file", filepath.Join(dir, e.Name()))
		}
		names[e.Name()] = true
	}
	return names, nil
}

func compareFile(dirA, dirB, name string) (*Difference, error) {
	a, err := os.Open(filepath.Join(dirA, name))
	if err != nil {
		return nil, fmt.Errorf("compare builds: %w", err)
	}
	defer a.Close()
	b, err := os.Open(filepath.Join(dirB, name))
	if err != nil {
		return nil, fmt.Errorf("compare builds: %w", err)
	}
	defer b.Close()
	at, err := diff.First(a, b)
	if err != nil {
		return nil, fmt.Errorf("compare builds: %s: %w", name, err)
	}
	if at < 0 {
		return nil, nil
	}
	d := &Difference{File: name, Offset: at}
	d.locate(a, b)
	return d, nil
}

// locate says what the byte belongs to. What cannot be read says nothing: the byte is named in any case.
func (d *Difference) locate(a, b *os.File) {
	fi, err := a.Stat()
	if err != nil {
		return
	}
	switch d.File {
	case "root.img":
		d.inRoot(a, b, "", d.Offset)
	case "boot.efi":
		d.inBoot(a)
	case "disk.img":
		d.inDisk(a, b, fi.Size())
	case "tree.txt":
		d.inLine(a)
	}
}

func (d *Difference) inRoot(a, b io.ReaderAt, where string, at int64) {
	t, err := erofs.Read(a)
	if err != nil {
		d.Inside = where
		return
	}
	if path, ok := erofs.FileAt(t, at); ok {
		d.Inside = where + "file " + path
		return
	}
	super, err := erofs.ReadSuperblock(a)
	if err == nil && at >= super.Size {
		d.Inside = where + "the verity tree"
		return
	}
	d.Inside = where + "the file system's inodes and directories"
	other, err := erofs.Read(b)
	if err != nil {
		return
	}
	if path, ok := diff.FirstEntry(t, other); ok {
		d.Other = path
	}
}

func (d *Difference) inBoot(a io.ReaderAt) {
	p, err := uki.Open(a)
	if err != nil {
		return
	}
	d.Inside = "the PE headers"
	for _, s := range p.Sections() {
		if d.Offset >= s.Offset && d.Offset < s.Offset+s.Size {
			d.Inside = "section " + s.Name
		}
	}
}

func (d *Difference) inDisk(a, b io.ReaderAt, size int64) {
	t, err := inspect.ReadTable(a, size)
	if err != nil {
		return
	}
	d.Inside = "no partition"
	for _, p := range t.Partitions {
		at := d.Offset - t.Offset(p)
		if at < 0 || at >= t.Size(p) {
			continue
		}
		where := "partition " + p.Name
		partA, partB := io.NewSectionReader(a, t.Offset(p), t.Size(p)), io.NewSectionReader(b, t.Offset(p), t.Size(p))
		switch p.Name {
		case "root-a", "root-b":
			d.inRoot(partA, partB, where+", ", at)
		case "esp":
			d.Inside, d.Other = where, firstInFAT(partA, partB)
		default:
			d.Inside = where
		}
	}
}

// firstInFAT returns the first file that is not in both or not the same, or "".
func firstInFAT(a, b io.ReaderAt) string {
	read := func(r io.ReaderAt) map[string][]byte {
		f, err := fat.Open(r)
		if err != nil {
			return nil
		}
		list, err := f.Files()
		if err != nil {
			return nil
		}
		all := map[string][]byte{}
		for _, file := range list {
			if file.Open == nil {
				all[file.Path] = nil // an empty directory
				continue
			}
			r, err := file.Open()
			if err != nil {
				return nil
			}
			all[file.Path], err = io.ReadAll(r)
			r.Close()
			if err != nil {
				return nil
			}
		}
		return all
	}
	x, y := read(a), read(b)
	union := maps.Clone(x)
	maps.Copy(union, y)
	for _, name := range slices.Sorted(maps.Keys(union)) {
		one, inX := x[name]
		two, inY := y[name]
		if inX != inY || !bytes.Equal(one, two) {
			return name
		}
	}
	return ""
}

// inLine names the line of the tree report.
func (d *Difference) inLine(a io.ReaderAt) {
	const most = 1 << 12
	start := max(d.Offset-most, 0)
	b := make([]byte, d.Offset-start+most)
	n, _ := a.ReadAt(b, start)
	b = b[:n]
	at := int(min(d.Offset-start, int64(len(b))))
	from := bytes.LastIndexByte(b[:at], '\n') + 1
	line, _, _ := bytes.Cut(b[from:], []byte("\n"))
	path, _, _ := bytes.Cut(line, []byte(": "))
	d.Inside = "the line of " + string(path)
}
