package medium

import (
	"encoding/binary"
	"errors"
	"io"
	"unicode/utf16"
)

// Tag identifiers of descriptors (ECMA-167 3/7.2.1, 4/7.2.1).
const (
	tagPrimary      = 1
	tagAnchor       = 2
	tagPartition    = 5
	tagLogical      = 6
	tagTerminating  = 8
	tagFileSet      = 256
	tagFileID       = 257
	tagFileEntry    = 261
	tagExtFileEntry = 266
)

// udf has blocks of 2048 bytes, as on CDs: the one medium of this kind that hypervisors present.
type udf struct {
	r     io.ReaderAt
	start int64 // of the partition, in blocks
}

func openUDF(r io.ReaderAt) (*Volume, error) {
	recognised := false
	for n := int64(16); n < 16+16 && !recognised; n++ {
		d, err := probe(r, n*isoSector, isoSector)
		if err != nil {
			return nil, err
		}
		recognised = string(d[1:5]) == "NSR0"
	}
	if !recognised {
		return nil, errFormat
	}
	anchor, err := descriptor(r, 256, tagAnchor)
	if err != nil {
		return nil, err
	}
	t := &udf{r: r}
	v := &Volume{Kind: "udf", tree: t}
	first := int64(binary.LittleEndian.Uint32(anchor[20:]))
	var fileSet int64 = -1
	for n := first; n < first+64; n++ {
		d, err := readAt(r, n*isoSector, isoSector)
		if err != nil {
			return nil, err
		}
		switch binary.LittleEndian.Uint16(d) {
		case tagPrimary:
			v.Label = dstring(d[24:56])
		case tagPartition:
			t.start = int64(binary.LittleEndian.Uint32(d[188:]))
		case tagLogical:
			if size := binary.LittleEndian.Uint32(d[212:]); size != isoSector || d[440] != 1 || binary.LittleEndian.Uint32(d[268:]) != 1 {
				return nil, errors.New("expected a UDF medium with blocks of 2048 bytes and one physical partition")
			}
			fileSet = int64(binary.LittleEndian.Uint32(d[252:]))
		case tagTerminating:
			n = first + 64
		}
	}
	if fileSet < 0 || t.start == 0 {
		return nil, errors.New("expected a UDF medium with a logical volume and a partition")
	}
	set, err := descriptor(r, t.start+fileSet, tagFileSet)
	if err != nil {
		return nil, err
	}
	v.root, err = t.entry(int64(binary.LittleEndian.Uint32(set[404:])))
	return v, err
}

// descriptor reads the block n, whose tag must be id.
func descriptor(r io.ReaderAt, n int64, id uint16) ([]byte, error) {
	d, err := readAt(r, n*isoSector, isoSector)
	if err != nil {
		return nil, err
	}
	if got := binary.LittleEndian.Uint16(d); got != id {
		return nil, errors.New("a UDF descriptor is not what the one before it says")
	}
	return d, nil
}

// entry reads the (extended) file entry at block n of the partition.
func (t *udf) entry(n int64) (entry, error) {
	d, err := readAt(t.r, (t.start+n)*isoSector, isoSector)
	if err != nil {
		return entry{}, err
	}
	lengths := 168
	switch binary.LittleEndian.Uint16(d) {
	case tagFileEntry:
	case tagExtFileEntry:
		lengths = 208
	default:
		return entry{}, errors.New("a UDF directory names something that is no file")
	}
	attributes, allocation := int64(binary.LittleEndian.Uint32(d[lengths:])), int64(binary.LittleEndian.Uint32(d[lengths+4:]))
	from := int64(lengths) + 8 + attributes
	if from+allocation > isoSector {
		return entry{}, errors.New("a UDF file entry is longer than its block")
	}
	e := entry{dir: d[27] == 4, size: int64(binary.LittleEndian.Uint64(d[56:])), data: d[from : from+allocation]}
	if e.size < 0 {
		return entry{}, errors.New("a UDF file has a negative size")
	}
	if e.at = int64(d[34] & 7); e.at != 3 && e.at > 1 { // how the space is described: short, long, or the content itself
		return entry{}, errors.New("a UDF file has allocation descriptors of a kind that is not known here")
	}
	return e, nil
}

func (t *udf) read(file entry, limit int64) ([]byte, error) {
	if file.at == 3 {
		return file.data[:min(file.size, int64(len(file.data)))], nil
	}
	width := 8
	if file.at == 1 {
		width = 16
	}
	var all []byte
	for d := file.data; len(d) >= width && int64(len(all)) < min(file.size, limit); d = d[width:] {
		length := binary.LittleEndian.Uint32(d)
		if length == 0 {
			break
		}
		if length>>30 != 0 {
			return nil, errors.New("a UDF file has space that is not recorded")
		}
		b, err := readAt(t.r, (t.start+int64(binary.LittleEndian.Uint32(d[4:])))*isoSector, min(int64(length), file.size-int64(len(all))))
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	if int64(len(all)) < min(file.size, limit) {
		return nil, io.ErrUnexpectedEOF
	}
	return all, nil
}

func (t *udf) list(dir entry) (all []entry, err error) {
	if dir.size > maxDir {
		return nil, errors.New("a UDF directory is too large")
	}
	b, err := t.read(dir, maxDir)
	if err != nil {
		return nil, err
	}
	for len(b) >= 38 && len(all) < maxDir/40 {
		if binary.LittleEndian.Uint16(b) != tagFileID {
			return nil, errors.New("a UDF directory holds something that is no entry")
		}
		name := 38 + int(binary.LittleEndian.Uint16(b[36:]))
		end := name + int(b[19])
		if end > len(b) {
			return nil, io.ErrUnexpectedEOF
		}
		if b[18]&(4|8) == 0 { // neither deleted nor the parent
			e, err := t.entry(int64(binary.LittleEndian.Uint32(b[24:])))
			if err != nil {
				return nil, err
			}
			e.name = compressed(b[name:end])
			all = append(all, e)
		}
		b = b[min((end+3)/4*4, len(b)):]
	}
	return all, nil
}

// compressed decodes OSTA CS0 (UDF 2.1.1): one or two bytes a character.
func compressed(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if b[0] == 16 {
		return utf16BE(b[1:])
	}
	units := make([]uint16, len(b)-1)
	for i, c := range b[1:] {
		units[i] = uint16(c)
	}
	return string(utf16.Decode(units))
}

// dstring is compressed in a field whose last byte is the length.
func dstring(b []byte) string {
	return compressed(b[:min(int(b[len(b)-1]), len(b)-1)])
}
