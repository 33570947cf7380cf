package residue

const golden = 0x9e3779b1

// A table remembers how far what an address leads to has moved.
type table struct {
	bits    int
	entries []entry
}

type entry struct {
	key, value uint32
	count      uint8 // 0 if there is none
}

func newTable(bits int) table { return table{bits, make([]entry, 1<<bits)} }

func (t *table) entry(key uint32) *entry { return &t.entries[key*golden>>(32-t.bits)] }

func (t *table) learn(key, value uint32) {
	e := t.entry(key)
	switch {
	case e.count == 0 || e.key != key:
		*e = entry{key, value, 1}
	case e.value == value:
		if e.count < 255 {
			e.count++
		}
	default:
		if e.count--; e.count == 0 {
			*e = entry{key, value, 1}
		}
	}
}

// guess returns what the difference k bytes behind the beginning of an operand is, if the ones before it are those known, and how
// much it is to be trusted.
func (t *table) guess(key, word, move uint32, k int, known []byte) (guess byte, trust uint32) {
	e := t.entry(key)
	if e.count == 0 || e.key != key {
		return 0, 0
	}
	changed := word + e.value + move
	for i, d := range known {
		if byte(changed>>(8*i))-byte(word>>(8*i)) != d {
			return 0, 0
		}
	}
	return byte(changed>>(8*k)) - byte(word>>(8*k)), uint32(min(e.count, 3)) + 1
}
