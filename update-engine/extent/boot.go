package extent

import (
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/proa-os/proa/internal/uki"
)

// ReadBoot returns the sections of a boot program of the given size, and the members of its initramfs by their paths there, which are
// those of the root image for modules.
func ReadBoot(r io.ReaderAt, size int64) (*Map, error) {
	m, err := readBoot(r, size)
	if err != nil {
		return nil, fmt.Errorf("read extents of boot program: %w", err)
	}
	return m, nil
}

func readBoot(r io.ReaderAt, size int64) (*Map, error) {
	program, err := uki.Open(r)
	if err != nil {
		return nil, err
	}
	var files []Extent
	for _, s := range program.Sections() {
		if s.Size == 0 {
			continue
		}
		if s.Offset > size-s.Size {
			return nil, fmt.Errorf("section %s ends at %d of %d bytes", s, s.Offset+s.Size, size)
		}
		if s.Name == uki.SectionInitrd {
			members, err := readCpio(r, s.Offset, s.Size)
			if err != nil {
				return nil, fmt.Errorf("section %s: %w", s.Name, err)
			}
			if members != nil {
				files = append(files, members...)
				continue
			}
		}
		files = append(files, Extent{Path: s.Name, Offset: s.Offset, Length: s.Size, Size: s.Size})
	}
	return newMap(size, files)
}

const (
	cpioMagic   = "070701"
	cpioHeader  = 110 // bytes
	cpioMode    = 14
	cpioSize    = 54
	cpioName    = 94
	cpioTrailer = "TRAILER!!!"
	maxName     = 4096
)

// readCpio returns the regular files of the first archive in a section; nil if it begins with none, as a compressed one does.
func readCpio(r io.ReaderAt, first, size int64) ([]Extent, error) {
	section := io.NewSectionReader(r, first, size)
	files := []Extent{}
	for at := int64(0); ; {
		var h [cpioHeader]byte
		if err := readAt(section, h[:], at); err != nil {
			if at == 0 {
				return nil, nil
			}
			return nil, fmt.Errorf("header at %d: %w", at, err)
		}
		if string(h[:len(cpioMagic)]) != cpioMagic {
			if at == 0 {
				return nil, nil
			}
			return nil, fmt.Errorf("header at %d begins with %q, expected %q", at, h[:len(cpioMagic)], cpioMagic)
		}
		mode, err1 := hexadecimal(h[cpioMode:])
		content, err2 := hexadecimal(h[cpioSize:])
		name, err3 := hexadecimal(h[cpioName:])
		if err1 != nil || err2 != nil || err3 != nil || name < 1 || name > maxName {
			return nil, fmt.Errorf("header at %d: mode %.8q, %.8q bytes, name of %.8q", at, h[cpioMode:], h[cpioSize:], h[cpioName:])
		}
		b := make([]byte, name)
		if err := readAt(section, b, at+cpioHeader); err != nil {
			return nil, fmt.Errorf("name at %d: %w", at+cpioHeader, err)
		}
		p := strings.TrimRight(string(b), "\x00")
		if p == cpioTrailer {
			return files, nil
		}
		data := four(at + cpioHeader + name)
		at = four(data + content)
		if at > size {
			return nil, fmt.Errorf("%q: ends at %d of %d bytes", p, at, size)
		}
		if p = path.Clean("/" + p)[1:]; p != "" && content > 0 && mode&modeType == modeFile {
			files = append(files, Extent{Path: p, Offset: first + data, Length: at - data, Size: content})
		}
	}
}

func hexadecimal(b []byte) (int64, error) {
	n, err := strconv.ParseUint(string(b[:8]), 16, 32)
	return int64(n), err
}

// four rounds up to what members are aligned to.
func four(n int64) int64 { return (n + 3) &^ 3 }
