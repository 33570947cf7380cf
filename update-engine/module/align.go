package module

import "sort"

// grams is how many items in a row have to be the same to be found again, far how many items it is looked for.
const (
	grams = 3
	far   = 4096
)

// align finds which items of the new table are those of the old one, in order: both are walked along, and where they differ, the nearest
// place is searched behind which they are the same again. New ones in between have nothing to be like, or, if they fit, what comes next.
func align(old, new []item, fit bool) []Piece {
	places := map[uint64][]int{}
	for i := 0; i+grams <= len(old); i++ {
		g := gram(old[i:])
		places[g] = append(places[g], i)
	}
	var pieces []Piece
	add := func(at, like, rest int) {
		if n := len(pieces); n > 0 {
			p := &pieces[n-1]
			if like > 0 && p.Rest == 0 && p.Old+p.Like == at {
				p.Like += like
				p.Rest = rest
				return
			}
			if like == 0 {
				p.Rest += rest
				return
			}
		}
		pieces = append(pieces, Piece{Old: at, Like: like, Rest: rest})
	}
	base := old[0].at
	for i, j := 0, 0; j < len(new); {
		if i < len(old) && old[i].key == new[j].key && old[i].size == new[j].size {
			add(old[i].at-base, new[j].size, 0)
			i, j = i+1, j+1
			continue
		}
		a, b := resync(places, old, new, i, j)
		for a > 0 && b > 0 && old[i].size == new[j].size { // another one in its place
			add(old[i].at-base, new[j].size, 0)
			i, j, a, b = i+1, j+1, a-1, b-1
		}
		if n := min(i, len(old)-b); fit && b > 0 && n >= 0 {
			// New ones are most like those that come next, or last.
			add(old[n].at-base, b*new[j].size, 0)
			i, j = i+a, j+b
			continue
		}
		for range b {
			add(0, 0, new[j].size)
			j++
		}
		i += a
	}
	return pieces
}

func gram(items []item) uint64 {
	var h uint64
	for _, x := range items[:grams] {
		h = h*factor + x.key
	}
	return h
}

// resync returns how many items of both are to be left out.
func resync(places map[uint64][]int, old, new []item, i, j int) (a, b int) {
	a, b = len(old)-i, len(new)-j
	best := a + b
	for k := 0; k < best && k < far && j+k+grams <= len(new); k++ {
		list := places[gram(new[j+k:])]
		if n := sort.SearchInts(list, i); n < len(list) && list[n]-i+k < best {
			a, b = list[n]-i, k
			best = a + b
		}
	}
	if a+b == 0 { // equal keys of different sizes
		return 0, 1
	}
	return a, b
}
