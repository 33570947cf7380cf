package residue

// A coder is both ends of the arithmetic coder: it narrows the range from low to high by each bit.
type coder struct {
	low, high uint32
	decoding  bool
	value     uint32 // decoding: the bytes at the range's place
	b         []byte // decoding: what is left; encoding: what is out
}

func newEncoder() *coder { return &coder{high: 1<<32 - 1} }

func newDecoder(b []byte) *coder {
	c := &coder{high: 1<<32 - 1, decoding: true, b: b}
	for range 4 {
		c.value = c.value<<8 | c.next()
	}
	return c
}

func (c *coder) next() uint32 {
	if len(c.b) == 0 {
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return uint32(v)
}

// code codes a bit that is 1 with the probability p of 4096, and returns it.
func (c *coder) code(bit, p int) int {
	mid := c.low + (c.high-c.low)>>12*uint32(p)
	if c.decoding {
		bit = 0
		if c.value <= mid {
			bit = 1
		}
	}
	if bit == 1 {
		c.high = mid
	} else {
		c.low = mid + 1
	}
	for (c.low^c.high)>>24 == 0 {
		if c.decoding {
			c.value = c.value<<8 | c.next()
		} else {
			c.b = append(c.b, byte(c.high>>24))
		}
		c.low <<= 8
		c.high = c.high<<8 | 255
	}
	return bit
}

// end returns all that was encoded.
func (c *coder) end() []byte {
	return append(c.b, byte(c.low>>24), byte(c.low>>16), byte(c.low>>8), byte(c.low))
}
