package residue

const (
	contexts = 6
	inputs   = contexts + 1 // the last one is constant
)

// logistic holds the tables of the logistic function: squash(x) = 4096 / (1 + e^(-x/256)), and its inverse.
type logistic struct {
	stretch [4096]int32
	rate    [256]int32 // 65536 / (n + 1.5)
}

func newLogistic() *logistic {
	l := &logistic{}
	next := 0
	for x := -2047; x <= 2047; x++ {
		for v := squash(x); next <= v; next++ {
			l.stretch[next] = int32(x)
		}
	}
	for ; next < len(l.stretch); next++ {
		l.stretch[next] = 2047
	}
	for n := range l.rate {
		l.rate[n] = int32(65536 * 2 / (2*n + 5))
	}
	return l
}

// squash interpolates between 33 points.
func squash(x int) int {
	points := [...]int{1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785,
		3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094}
	if x > 2047 {
		return 4095
	}
	if x < -2047 {
		return 1
	}
	w := x & 127
	i := (x + 2048) >> 7
	return (points[i]*(128-w) + points[i+1]*w + 64) >> 7
}

// A mixer predicts bits from six contexts and learns from what they are.
type mixer struct {
	*logistic
	probabilities []uint32 // six tables; each entry is 22 bits of probability and 10 of a count
	bits          int      // of an index
	limit         uint32   // of the count: how fast the old is forgotten
	weights       []int32  // sets of inputs; 65536 is 1
	work          int      // bits since reset

	// Of the current bit:
	at [contexts]int
	in [inputs]int32
}

func newMixer(l *logistic, bits int, limit uint32, sets int) *mixer {
	m := &mixer{logistic: l, bits: bits, limit: limit, probabilities: make([]uint32, contexts<<bits), weights: make([]int32, sets*inputs)}
	return m
}

func (m *mixer) reset() {
	m.work = 0
	for i := range m.probabilities {
		m.probabilities[i] = 1 << 31
	}
	for i := range m.weights {
		m.weights[i] = 20000
	}
}

// code predicts a bit by a hash of each context and a set of weights, codes and learns it.
func (m *mixer) code(c *coder, bit int, hashes *[contexts]uint32, set int) int {
	m.work++
	w := m.weights[set*inputs : set*inputs+inputs]
	var dot int64
	for i, h := range hashes {
		at := i<<m.bits + int(h>>(32-m.bits))
		m.at[i] = at
		in := m.stretch[m.probabilities[at]>>20]
		m.in[i] = in
		dot += int64(in) * int64(w[i])
	}
	m.in[contexts] = 256
	dot += 256 * int64(w[contexts])
	p := squash(int(max(min(dot>>16, 2047), -2047)))
	p = max(min(p, 4095), 1)
	bit = c.code(bit, p)
	err := int32((bit<<12 - p) * 60)
	for i, in := range m.in {
		w[i] += (in*err + 0x8000) >> 16
	}
	for _, at := range m.at {
		v := m.probabilities[at]
		n := v & 1023
		q := int64(v >> 10)
		q += (int64(bit)<<22 - int64(bit) - q) * int64(m.rate[n]) >> 16
		if n < m.limit {
			n++
		}
		m.probabilities[at] = uint32(q)<<10 | n
	}
	return bit
}
