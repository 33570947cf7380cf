package bsdiff

// A writer collects the pieces of a new file.
type writer struct {
	old, new []byte
	control  []Control

	// The current match: byte done of the new file, up to which everything is written, is byte at of the old one.
	done, at int
	from     int // where the old file's place is after the pieces so far
}

// matched ends the current match where byte scan of the new file was found at byte at of the old one: the current match is extended
// forward, the new one backward, each as long as at least half of the bytes are equal, and where both meet they are cut where most are.
func (w *writer) matched(at, scan int) {
	forward := w.forward(scan)
	backward := 0
	if scan < len(w.new) {
		backward = w.backward(at, scan)
	}
	if overlap := w.done + forward - (scan - backward); overlap > 0 {
		cut := w.cut(at, scan, forward, backward, overlap)
		forward += cut - overlap
		backward -= cut
	}
	w.piece(forward, scan-backward-w.done, w.at)
	w.done, w.at = scan-backward, at-backward
}

// forward is how far the current match reaches, at most to scan.
func (w *writer) forward(scan int) int {
	equal, best, length := 0, 0, 0
	for i := 0; w.done+i < scan && w.at+i < len(w.old); {
		if w.old[w.at+i] == w.new[w.done+i] {
			equal++
		}
		i++
		if equal*2-i > best*2-length {
			best, length = equal, i
		}
	}
	return length
}

// backward is how far the match of scan reaches back, at most to what is written.
func (w *writer) backward(at, scan int) int {
	equal, best, length := 0, 0, 0
	for i := 1; scan-i >= w.done && at-i >= 0; i++ {
		if w.old[at-i] == w.new[scan-i] {
			equal++
		}
		if equal*2-i > best*2-length {
			best, length = equal, i
		}
	}
	return length
}

// cut is how many of the overlapping bytes are better those of the current match.
func (w *writer) cut(at, scan, forward, backward, overlap int) int {
	score, best, length := 0, 0, 0
	first := w.done + forward - overlap // in the new file
	for i := range overlap {
		c := w.new[first+i]
		if c == w.old[w.at+forward-overlap+i] {
			score++
		}
		if c == w.old[at-backward+i] {
			score--
		}
		if score > best {
			best, length = score, i+1
		}
	}
	return length
}

// piece describes the next total bytes of the new file, add of them as differences to the old file's at byte at.
func (w *writer) piece(add, total, at int) {
	if total == 0 {
		return
	}
	if n := len(w.control); n > 0 {
		w.control[n-1].Seek = int64(at - w.from)
	} else if at != 0 {
		w.control = append(w.control, Control{Seek: int64(at)})
	}
	w.control = append(w.control, Control{Add: int64(add), Copy: int64(total - add)})
	w.from = at + add
}
