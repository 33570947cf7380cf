// Package suffix sorts the suffixes of a file in linear time, by induced sorting (SA-IS: Nong, Zhang, Chan, "Two Efficient Algorithms for
// Linear Time Suffix Array Construction", 2011). Package bsdiff finds matches in the array, package bzip2 sorts blocks with it.
//
// It needs five bytes of memory for each byte of the file, those of the result included.
package suffix

// Array sorts the suffixes of s, at most 2 GiB less one byte: sa, which is as long as s, gets their first positions in order. A suffix
// that is the beginning of another is the smaller one.
func Array(s []byte, sa []int32) { suffixArray(s, sa, 256) }

// An alphabet is what strings to be sorted are made of: the bytes of a file, or the names of its substrings one level down.
type alphabet interface{ byte | int32 }

// suffixArray sorts the suffixes of s, whose letters are smaller than letters: sa, as long as s, gets their first positions. A suffix
// that is the beginning of another is the smaller one.
func suffixArray[T alphabet](s []T, sa []int32, letters int) {
	switch len(s) {
	case 0:
		return
	case 1:
		sa[0] = 0
		return
	}
	w := sorter[T]{s: s, sa: sa, counts: make([]int32, letters), place: make([]int32, letters), lms: make([]uint64, len(s)/64+1)}
	for _, c := range s {
		w.counts[c]++
	}
	n := w.sortSubstrings()
	names := w.name(n)
	// The substrings' names are a string with at most half as many letters; its suffixes are sorted as those that begin at the substrings.
	short := sa[len(sa)-n:]
	if names < n {
		suffixArray(short, sa[:n], names)
	} else {
		for i, c := range short {
			sa[c] = int32(i)
		}
	}
	w.sortAll(n)
}

// A sorter has one level's string. A suffix is of type S if it is smaller than the next one, else L; a leftmost S (LMS) follows an L.
// The last suffix is L: what follows is the empty suffix, the smallest of all.
type sorter[T alphabet] struct {
	s      []T
	sa     []int32
	counts []int32  // occurrences of each letter
	place  []int32  // the next free place of each letter's bucket, from its begin or its end
	lms    []uint64 // bit set of the LMS positions
}

func (w *sorter[T]) isLMS(i int32) bool { return w.lms[i>>6]>>(i&63)&1 != 0 }

// begins and ends set place to the first place of each bucket, and behind the last.
func (w *sorter[T]) begins() {
	var sum int32
	for c, n := range w.counts {
		w.place[c] = sum
		sum += n
	}
}

func (w *sorter[T]) ends() {
	var sum int32
	for c, n := range w.counts {
		sum += n
		w.place[c] = sum
	}
}

// empty marks a place of the suffix array that has no suffix yet.
const empty = -1

// sortSubstrings sorts the substrings from each LMS position to the next, and leaves these positions, n of them, at the array's begin.
func (w *sorter[T]) sortSubstrings() (n int) {
	for i := range w.sa {
		w.sa[i] = empty
	}
	w.ends()
	larger := true // whether the suffix at i+1 is of type L
	for i := len(w.s) - 2; i >= 0; i-- {
		c, next := w.s[i], w.s[i+1]
		l := c > next || c == next && larger
		if l && !larger {
			w.lms[(i+1)>>6] |= 1 << ((i + 1) & 63)
			w.place[next]--
			w.sa[w.place[next]] = int32(i + 1)
		}
		larger = l
	}
	w.induce()
	for _, i := range w.sa {
		if w.isLMS(i) {
			w.sa[n] = i
			n++
		}
	}
	return n
}

// induce sorts all suffixes from the LMS ones in their buckets: first those of type L, from left to right, then those of type S.
func (w *sorter[T]) induce() {
	s, sa, place := w.s, w.sa, w.place
	w.begins()
	last := int32(len(s) - 1)
	sa[place[s[last]]] = last
	place[s[last]]++
	for i := range sa {
		j := sa[i] - 1
		if j < 0 {
			continue
		}
		if c := s[j]; c >= s[j+1] {
			sa[place[c]] = j
			place[c]++
		}
	}
	w.ends()
	for i := int32(len(sa)) - 1; i >= 0; i-- {
		j := sa[i] - 1
		if j < 0 {
			continue
		}
		// Of equal letters, j is of type S if its successor is, and those lie behind what is filled so far.
		if c := s[j]; c < s[j+1] || c == s[j+1] && place[c] <= i {
			place[c]--
			sa[place[c]] = j
		}
	}
}

// name gives the n sorted substrings numbers in their order, equal ones the same, and leaves them at the array's end in the order of the
// string. It returns how many different ones there are.
func (w *sorter[T]) name(n int) (names int) {
	rest := w.sa[n:]
	for i := range rest {
		rest[i] = empty
	}
	prev := int32(empty)
	for _, i := range w.sa[:n] {
		if prev == empty || !w.sameSubstring(prev, i) {
			names++
		}
		rest[i/2] = int32(names - 1) // No two LMS positions are neighbours.
		prev = i
	}
	to := len(rest)
	for i := len(rest) - 1; i >= 0; i-- {
		if rest[i] != empty {
			to--
			rest[to] = rest[i]
		}
	}
	return names
}

func (w *sorter[T]) sameSubstring(a, b int32) bool {
	n := int32(len(w.s))
	for first := true; ; first = false {
		if a >= n || b >= n || w.s[a] != w.s[b] {
			return false
		}
		if x, y := w.isLMS(a), w.isLMS(b); !first && (x || y) {
			return x && y
		}
		a, b = a+1, b+1
	}
}

// sortAll sorts all suffixes, from the order of the LMS ones in the array's begin.
func (w *sorter[T]) sortAll(n int) {
	order, positions := w.sa[:n], w.sa[len(w.sa)-n:]
	k := 0
	for i := range w.s {
		if w.isLMS(int32(i)) {
			positions[k] = int32(i)
			k++
		}
	}
	for i, o := range order {
		order[i] = positions[o]
	}
	for i := n; i < len(w.sa); i++ {
		w.sa[i] = empty
	}
	w.ends()
	for i := n - 1; i >= 0; i-- {
		at := w.sa[i]
		w.sa[i] = empty
		c := w.s[at]
		w.place[c]--
		w.sa[w.place[c]] = at
	}
	w.induce()
}
