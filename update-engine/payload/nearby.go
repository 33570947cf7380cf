package payload

// nearbySize is how many bytes of the sources are read at once, and nearbyBack how many of them before those that are asked for.
const (
	nearbySize = 32 << 10
	nearbyBack = 8 << 10
)

// Nearby is what lies around the bytes that were read last. Nearly all that a DIFF adds to are some kilobytes near those before.
type nearby struct {
	b  []byte
	at int64 // source address
}

func (w *nearby) forget() { w.b = w.b[:0] }

// read fills b from an address on. The space is read no further than limit.
func (w *nearby) read(b []byte, at int64, s space, limit int64) error {
	n := int64(len(b))
	if n > nearbySize/2 {
		return s.read(b, at)
	}
	if at < w.at || at+n > w.at+int64(len(w.b)) {
		if w.b == nil {
			w.b = make([]byte, nearbySize)
		}
		w.at = max(0, at-nearbyBack)
		w.b = w.b[:min(nearbySize, limit-w.at)]
		if err := s.read(w.b, w.at); err != nil {
			w.forget()
			return s.read(b, at) // what cannot be read may be what nobody asks for
		}
	}
	copy(b, w.b[at-w.at:])
	return nil
}
