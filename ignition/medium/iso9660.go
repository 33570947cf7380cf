package medium

import (
	"encoding/binary"
	"io"
	"strings"
	"unicode/utf16"
)

// isoSector is the logical sector of ECMA-119; descriptors begin at sector 16.
const isoSector = 2048

type iso struct {
	r      io.ReaderAt
	joliet bool
	block  int64
}

// openISO takes the primary volume descriptor's label, and the Joliet tree if there is one: its names are not mangled.
func openISO(r io.ReaderAt) (*Volume, error) {
	var v *Volume
	for n := int64(16); n < 16+64; n++ {
		d, err := probe(r, n*isoSector, isoSector)
		if err != nil {
			return nil, err
		}
		if string(d[1:6]) != "CD001" {
			break
		}
		switch {
		case d[0] == 255: // set terminator
			if v == nil {
				return nil, errFormat
			}
			return v, nil
		case d[0] == 1 && v == nil:
			v = isoVolume(r, d, false)
			v.Label = strings.TrimRight(string(d[40:72]), " \x00")
		case d[0] == 2 && v != nil && (string(d[88:91]) == "%/@" || string(d[88:91]) == "%/C" || string(d[88:91]) == "%/E"):
			label := v.Label
			v = isoVolume(r, d, true)
			v.Label = label
		}
	}
	if v == nil {
		return nil, errFormat
	}
	return v, nil
}

func isoVolume(r io.ReaderAt, d []byte, joliet bool) *Volume {
	t := &iso{r: r, joliet: joliet, block: int64(binary.LittleEndian.Uint16(d[128:]))}
	root, _ := t.record(d[156:190])
	root.dir = true
	return &Volume{Kind: "iso9660", root: root, tree: t}
}

// record reads a directory record (ECMA-119 9.1); ok is false for "." and "..", and for what is too short.
func (t *iso) record(b []byte) (e entry, ok bool) {
	if len(b) < 34 || int(b[32])+33 > len(b) {
		return entry{}, false
	}
	e = entry{at: int64(binary.LittleEndian.Uint32(b[2:])), size: int64(binary.LittleEndian.Uint32(b[10:])), dir: b[25]&2 != 0}
	name := b[33 : 33+int(b[32])]
	if len(name) == 1 && name[0] <= 1 {
		return e, false
	}
	if t.joliet {
		e.name = utf16BE(name)
	} else {
		e.name = string(name)
		if alternate := rockRidgeName(b[min(33+len(name)+(1-len(name)%2), len(b)):]); alternate != "" {
			e.name = alternate
			return e, true
		}
	}
	e.name, _, _ = strings.Cut(e.name, ";") // the version
	e.name = strings.TrimSuffix(e.name, ".")
	return e, true
}

// rockRidgeName joins the NM entries of a System Use area (IEEE P1282 4.1.4).
func rockRidgeName(b []byte) (name string) {
	for len(b) >= 5 && int(b[2]) >= 4 && int(b[2]) <= len(b) {
		if string(b[:2]) == "NM" && b[4]&6 == 0 {
			name += string(b[5:b[2]])
		}
		b = b[b[2]:]
	}
	return name
}

func utf16BE(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

func (t *iso) list(dir entry) (all []entry, err error) {
	b, err := readAt(t.r, dir.at*t.block, min(dir.size, maxDir))
	if err != nil {
		return nil, err
	}
	for at := 0; at < len(b); {
		n := int(b[at])
		if n == 0 { // records do not cross sectors
			at = (at/isoSector + 1) * isoSector
			continue
		}
		if e, ok := t.record(b[at:min(at+n, len(b))]); ok {
			all = append(all, e)
		}
		at += n
	}
	return all, nil
}

func (t *iso) read(file entry, _ int64) ([]byte, error) {
	return readAt(t.r, file.at*t.block, file.size)
}
