package bzip2

import (
	"cmp"
	"slices"
)

const (
	groupSize = 50 // symbols that share a table
	minTables = 2
	maxTables = 6
	maxLength = 17 // bits of a code; readers take 20, the reference writes 17
	maxRounds = 30 // of refinement
)

// A coding is how a block's symbols are written: a few tables of code lengths, and which of them each group uses.
type coding struct {
	lengths   [][]uint8
	selectors []uint8
	cost      int // bits of tables, selectors and symbols
}

// bestCoding tries every number of tables.
func bestCoding(syms []uint16, alphabet int) *coding {
	groups := groupCounts(syms)
	var best *coding
	for n := minTables; n <= maxTables; n++ {
		if c := refined(groups, syms, alphabet, n); best == nil || c.cost < best.cost {
			best = c
		}
	}
	return best
}

// A count is how often a symbol occurs in a group.
type count struct {
	sym uint16
	n   uint16
}

// groupCounts are the different symbols of each group: with runs, there are fewer than fifty.
func groupCounts(syms []uint16) [][]count {
	groups := make([][]count, 0, len(syms)/groupSize+1)
	for g := range slices.Chunk(syms, groupSize) {
		sorted := slices.Sorted(slices.Values(g))
		var list []count
		for _, s := range sorted {
			if n := len(list); n > 0 && list[n-1].sym == s {
				list[n-1].n++
			} else {
				list = append(list, count{s, 1})
			}
		}
		groups = append(groups, list)
	}
	return groups
}

// refined begins with tables that are good at a part of the alphabet each, as the reference does, and then in turn lets each group choose
// the best table and makes tables of the groups that have chosen them, until that gains nothing.
func refined(groups [][]count, syms []uint16, alphabet, tables int) *coding {
	c := &coding{lengths: firstTables(syms, alphabet, tables), selectors: make([]uint8, len(groups))}
	var best *coding
	for range maxRounds {
		freqs := make([][]int, tables)
		for t := range freqs {
			freqs[t] = make([]int, alphabet)
		}
		for i, g := range groups {
			t := c.cheapest(g)
			c.selectors[i] = uint8(t)
			for _, s := range g {
				freqs[t][s.sym] += int(s.n)
			}
		}
		c.cost = c.selectorCost()
		for t, f := range freqs {
			c.lengths[t] = codeLengths(f)
			c.cost += tableCost(c.lengths[t])
			for s, n := range f {
				c.cost += n * int(c.lengths[t][s])
			}
		}
		if best != nil && c.cost >= best.cost {
			break
		}
		best = &coding{slices.Clone(c.lengths), slices.Clone(c.selectors), c.cost}
	}
	return best
}

// firstTables divides the alphabet into ranges of about equally many occurrences; each table has short codes for one.
func firstTables(syms []uint16, alphabet, tables int) [][]uint8 {
	freq := make([]int, alphabet)
	for _, s := range syms {
		freq[s]++
	}
	list := make([][]uint8, tables)
	left, from := len(syms), 0
	for t := range list {
		share, to, sum := left/(tables-t), from, 0
		for to < alphabet && (sum < share || to == from) {
			sum += freq[to]
			to++
		}
		list[t] = slices.Repeat([]uint8{15}, alphabet)
		for s := from; s < to; s++ {
			list[t][s] = 0
		}
		left, from = left-sum, to
	}
	return list
}

func (c *coding) cheapest(g []count) (best int) {
	least := -1
	for t, lengths := range c.lengths {
		cost := 0
		for _, s := range g {
			cost += int(s.n) * int(lengths[s.sym])
		}
		if least < 0 || cost < least {
			best, least = t, cost
		}
	}
	return best
}

// places are the selectors as places in a list in which the one used moves to the front.
func (c *coding) places() []int {
	list := []uint8{0, 1, 2, 3, 4, 5}
	out := make([]int, len(c.selectors))
	for i, s := range c.selectors {
		p := slices.Index(list, s)
		copy(list[1:], list[:p])
		list[0], out[i] = s, p
	}
	return out
}

func (c *coding) selectorCost() (bits int) {
	for _, p := range c.places() {
		bits += p + 1
	}
	return bits
}

// tableCost is what writeTable writes, in bits.
func tableCost(lengths []uint8) int {
	bits, now := 5, lengths[0]
	for _, l := range lengths {
		bits += 1 + 2*int(max(now, l)-min(now, l))
		now = l
	}
	return bits
}

func (c *coding) writeTables(w *bitWriter) {
	w.bits(3, uint64(len(c.lengths)))
	w.bits(15, uint64(len(c.selectors)))
	for _, p := range c.places() {
		w.bits(p+1, 1<<(p+1)-2) // ones, then a zero
	}
	for _, lengths := range c.lengths {
		writeTable(w, lengths)
	}
}

// writeTable writes each length as steps up (10) or down (11) from the one before, and a 0.
func writeTable(w *bitWriter, lengths []uint8) {
	now := lengths[0]
	w.bits(5, uint64(now))
	for _, l := range lengths {
		for ; now < l; now++ {
			w.bits(2, 0b10)
		}
		for ; now > l; now-- {
			w.bits(2, 0b11)
		}
		w.bits(1, 0)
	}
}

func (c *coding) writeSymbols(w *bitWriter, syms []uint16) {
	codes := make([][]uint32, len(c.lengths))
	for t, lengths := range c.lengths {
		codes[t] = canonical(lengths)
	}
	for i, s := range syms {
		t := c.selectors[i/groupSize]
		w.bits(int(c.lengths[t][s]), uint64(codes[t][s]))
	}
}

// canonical numbers the codes: shorter ones first, then by symbol.
func canonical(lengths []uint8) []uint32 {
	codes := make([]uint32, len(lengths))
	var code uint32
	for l := uint8(1); l <= maxLength; l++ {
		for s, n := range lengths {
			if n == l {
				codes[s] = code
				code++
			}
		}
		code <<= 1
	}
	return codes
}

// codeLengths are those of a Huffman code that has every symbol, also those that never occur, with no code longer than maxLength.
func codeLengths(freq []int) []uint8 {
	weights := make([]int, len(freq))
	for s, n := range freq {
		weights[s] = max(n, 1)
	}
	for {
		lengths, longest := huffman(weights)
		if longest <= maxLength {
			return lengths
		}
		for s, n := range weights {
			weights[s] = n/2 + 1
		}
	}
}

// huffman makes a code of at least two symbols: of sorted leaves and of nodes, which come about sorted, the two lightest are joined again and again.
func huffman(weights []int) (lengths []uint8, longest int) {
	n := len(weights)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(weights[a], weights[b]) })
	sums := make([]int, 0, n-1) // of the nodes
	parent := make([]int, 2*n-1)
	leaf, node := 0, 0
	lightest := func(into int) int {
		if leaf < n && (node == len(sums) || weights[order[leaf]] <= sums[node]) {
			leaf++
			parent[order[leaf-1]] = into
			return weights[order[leaf-1]]
		}
		node++
		parent[n+node-1] = into
		return sums[node-1]
	}
	for len(sums) < n-1 {
		into := n + len(sums)
		a := lightest(into)
		sums = append(sums, a+lightest(into))
	}
	depth := make([]int, 2*n-1)
	for i := 2*n - 3; i >= n; i-- {
		depth[i] = depth[parent[i]] + 1
	}
	lengths = make([]uint8, n)
	for s := range weights {
		d := depth[parent[s]] + 1
		lengths[s], longest = uint8(min(d, 255)), max(longest, d)
	}
	return lengths, longest
}
