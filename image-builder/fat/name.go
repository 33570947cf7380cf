package fat

import (
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	maxName  = 255
	perEntry = 13 // UTF-16 units of a long name in one entry
)

// checkName refuses what one of the readers could not take: FAT forbids the listed characters, and a dot or space at
// the end is dropped by some.
func checkName(name string) error {
	bad := func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`"*/:<>?\|`, r) }
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, bad) || strings.TrimRight(name, ". ") != name || name[0] == ' ' {
		return fmt.Errorf("name %q is not one for FAT: expected printable ASCII without \"*/:<>?\\| and no dot or space at the end", name)
	}
	return nil
}

// shortChar says what a short name may have in it besides letters and digits.
const shortChar = "$%'-_@~`!(){}^#&"

// shortName returns the 11 bytes for name, not used so far, and whether they say name in full.
func shortName(name string, used map[[11]byte]bool) (short [11]byte, exact bool, err error) {
	base, ext := name, ""
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		base, ext = name[:i], name[i+1:]
	}
	b, lossyBase := shortPart(base)
	x, lossyExt := shortPart(ext)
	fits := !lossyBase && !lossyExt && len(b) <= 8 && len(x) <= 3 && b != ""
	x = x[:min(len(x), 3)]
	if fits {
		if short = pack(b, x); !used[short] {
			return short, strings.ToUpper(name) == name, nil
		}
	}
	for n := 1; n < 1_000_000; n++ {
		tail := fmt.Sprintf("~%d", n)
		if short = pack(b[:min(len(b), 8-len(tail))]+tail, x); !used[short] {
			return short, false, nil
		}
	}
	return short, false, fmt.Errorf("no short name is left for %q", name)
}

// shortPart turns one half of a name into what a short name may have; lossy says that more than case is lost.
func shortPart(s string) (string, bool) {
	var b strings.Builder
	lossy := false
	for _, c := range []byte(strings.ToUpper(s)) {
		switch {
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte(shortChar, c) >= 0:
			b.WriteByte(c)
		case c == ' ' || c == '.':
			lossy = true
		default:
			b.WriteByte('_')
			lossy = true
		}
	}
	return b.String(), lossy
}

func pack(base, ext string) (s [11]byte) {
	copy(s[:], "           ")
	copy(s[:8], base)
	copy(s[8:], ext)
	return s
}

// checksum ties long name entries to their short name.
func checksum(short [11]byte) byte {
	var sum byte
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

// longOffsets are where the 13 units of a long name entry are.
func longOffsets() [perEntry]int {
	return [perEntry]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}
}

// longEntries returns the entries that carry name, last part first.
func longEntries(name string, short [11]byte) []byte {
	count := (len(name) + perEntry - 1) / perEntry
	var out []byte
	for n := count; n > 0; n-- {
		e := make([]byte, entrySize)
		e[0] = byte(n)
		if n == count {
			e[0] |= 0x40
		}
		e[11] = attrLong
		e[13] = checksum(short)
		for i, off := range longOffsets() {
			unit := uint16(0xffff)
			switch at := (n-1)*perEntry + i; {
			case at < len(name):
				unit = uint16(name[at])
			case at == len(name):
				unit = 0
			}
			binary.LittleEndian.PutUint16(e[off:], unit)
		}
		out = append(out, e...)
	}
	return out
}
