// Package elfcheck proves that every program and library of a tree finds the libraries it needs inside that tree.
//
// Packages are left out and files removed on purpose, against the packages' own dependencies; this check is what makes
// that safe. It follows DT_NEEDED (gABI, "Dynamic Section") and the JSON notes of section .note.dlopen (systemd's ELF dlopen
// metadata) with priority "required". Run paths are honoured with $ORIGIN; there is no ld.so.cache in the image, so the
// search path is the loader's built-in one.
package elfcheck

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
)

// A File is a regular file of the tree.
type File struct {
	Path string // without a leading slash
	Open func() (io.ReadCloser, error)
}

// A Missing library and who needs it.
type Missing struct {
	Path   string // the file that needs it
	Soname string
}

func (m Missing) String() string { return m.Path + " needs " + m.Soname }

// Check looks at every ELF file. exists says whether a path (of a file or of a link that leads to one) is in the tree;
// search are the loader's directories. The result is sorted.
func Check(files []File, exists func(p string) bool, search []string) ([]Missing, error) {
	var missing []Missing
	for _, f := range files {
		needs, runpath, err := needed(f)
		if err != nil {
			return nil, fmt.Errorf("read ELF of %s: %w", f.Path, err)
		}
		// A library beside others of its program counts on them being loaded already, by the program's run path.
		dirs := append(append(runpath, search...), "$ORIGIN")
		for _, n := range needs {
			if !found(n, f.Path, dirs, exists) {
				missing = append(missing, Missing{f.Path, n})
			}
		}
	}
	sort.Slice(missing, func(i, j int) bool { return missing[i].String() < missing[j].String() })
	return missing, nil
}

func found(soname, user string, dirs []string, exists func(string) bool) bool {
	for _, d := range dirs {
		d = strings.ReplaceAll(d, "$ORIGIN", "/"+path.Dir(user))
		if exists(strings.TrimPrefix(path.Join(d, soname), "/")) {
			return true
		}
	}
	return false
}

// needed returns nothing for what is not an ELF file or is statically linked.
func needed(f File) (sonames, runpath []string, err error) {
	r, err := f.Open()
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	var magic [4]byte
	if n, err := io.ReadFull(r, magic[:]); err == io.EOF || err == io.ErrUnexpectedEOF || err == nil && string(magic[:n]) != elf.ELFMAG {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	rest, err := io.ReadAll(r)
	if err != nil {
		return nil, nil, err
	}
	e, err := elf.NewFile(bytes.NewReader(append(magic[:], rest...)))
	if err != nil {
		return nil, nil, err
	}
	defer e.Close()
	if e.Type == elf.ET_REL { // a kernel module
		return nil, nil, nil
	}
	if e.Section(".dynamic") == nil {
		return nil, nil, nil
	}
	if sonames, err = e.ImportedLibraries(); err != nil {
		return nil, nil, err
	}
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, err := e.DynString(tag)
		if err != nil {
			return nil, nil, err
		}
		for _, p := range paths {
			runpath = append(runpath, strings.Split(p, ":")...)
		}
	}
	if s := e.Section(".note.dlopen"); s != nil {
		data, err := s.Data()
		if err != nil {
			return nil, nil, err
		}
		sonames = append(sonames, requiredDlopens(data, e.ByteOrder)...)
	}
	return sonames, runpath, nil
}

// requiredDlopens walks the notes: name size, descriptor size, type, then both padded to four bytes.
func requiredDlopens(b []byte, order binary.ByteOrder) []string {
	var out []string
	for len(b) >= 12 {
		nameLen, descLen := align4(order.Uint32(b)), align4(order.Uint32(b[4:]))
		b = b[12:]
		if uint64(nameLen)+uint64(descLen) > uint64(len(b)) {
			break
		}
		desc := bytes.TrimRight(b[nameLen:nameLen+descLen], "\x00")
		b = b[nameLen+descLen:]
		var entries []struct {
			Soname   []string `json:"soname"`
			Priority string   `json:"priority"`
		}
		if json.Unmarshal(desc, &entries) != nil {
			continue
		}
		for _, e := range entries {
			if e.Priority == "required" {
				out = append(out, e.Soname...)
			}
		}
	}
	return out
}

func align4(n uint32) uint32 { return (n + 3) &^ 3 }
