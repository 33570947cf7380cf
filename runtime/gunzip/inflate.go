package gunzip

import (
	"encoding/binary"
	"fmt"
)

// need brings n bits, at most 16.
func (z *Reader) need(n uint) error {
	for z.n < n {
		if z.pos == len(z.in) && !z.more() {
			return z.short()
		}
		z.bits |= uint64(z.in[z.pos]) << z.n
		z.pos++
		z.n += 8
	}
	return nil
}

// number takes n bits, at most 16.
func (z *Reader) number(n uint) (int, error) {
	if err := z.need(n); err != nil {
		return 0, err
	}
	v := int(z.bits & (1<<n - 1))
	z.bits >>= n
	z.n -= n
	return v, nil
}

func (z *Reader) blockHeader() error {
	if z.last {
		z.state = trailer
		return nil
	}
	v, err := z.number(3)
	if err != nil {
		return err
	}
	z.last = v&1 != 0
	switch v >> 1 {
	case 0:
		z.giveBack()
		z.bits, z.n = 0, 0
		b, err := z.take(4)
		if err != nil {
			return err
		}
		z.left = int(binary.LittleEndian.Uint16(b))
		if uint16(z.left) != ^binary.LittleEndian.Uint16(b[2:]) {
			return fmt.Errorf("%w: the length of a stored block", ErrCorrupt)
		}
		z.state = stored
		return nil
	case 1:
		return z.fixed()
	case 2:
		return z.dynamic()
	}
	return fmt.Errorf("%w: a block of kind 3", ErrCorrupt)
}

func (z *Reader) copyStored() error {
	if z.left == 0 {
		z.state = block
		return nil
	}
	if !z.fill(1) {
		return z.short()
	}
	n := copy(z.out[z.w:min(z.w+z.left, outSize)], z.in[z.pos:])
	z.pos, z.w, z.left, z.history = z.pos+n, z.w+n, z.left-n, min(z.history+n, outSize)
	return nil
}

// fixed is RFC 1951, 3.2.6.
func (z *Reader) fixed() error {
	var l [288]uint8
	for i := range l {
		switch {
		case i < 144, i >= 280:
			l[i] = 8
		case i < 256:
			l[i] = 9
		default:
			l[i] = 7
		}
	}
	if err := z.lit.build(l[:], ofLength); err != nil {
		return err
	}
	var d [32]uint8
	for i := range d {
		d[i] = 5
	}
	z.state = symbols
	return z.dist.build(d[:], ofDistance)
}

// dynamic is RFC 1951, 3.2.7.
func (z *Reader) dynamic() error {
	v, err := z.number(14)
	if err != nil {
		return err
	}
	lits, dists, codes := v&31+257, v>>5&31+1, v>>10+4
	if lits > 286 || dists > 30 {
		return fmt.Errorf("%w: %d and %d codes", ErrCorrupt, lits, dists)
	}
	var l [19]uint8
	order := [19]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
	for _, i := range order[:codes] {
		n, err := z.number(3)
		if err != nil {
			return err
		}
		l[i] = uint8(n)
	}
	code := table{start: 7}
	if err := code.build(l[:], func(symbol int) (entry, error) { return isLiteral | entry(symbol)<<16, nil }); err != nil {
		return err
	}
	lengths := z.lengths[:lits+dists]
	for i := 0; i < len(lengths); {
		n, value, err := z.repeated(&code)
		if err != nil {
			return err
		}
		if value < 0 { // that before
			if i == 0 {
				return fmt.Errorf("%w: a repetition of nothing", ErrCorrupt)
			}
			value = int(lengths[i-1])
		}
		if i+n > len(lengths) {
			return fmt.Errorf("%w: too many lengths of codes", ErrCorrupt)
		}
		for range n {
			lengths[i] = uint8(value)
			i++
		}
	}
	if lengths[256] == 0 {
		return fmt.Errorf("%w: a block without an end", ErrCorrupt)
	}
	if err := z.lit.build(lengths[:lits], ofLength); err != nil {
		return err
	}
	z.state = symbols
	return z.dist.build(lengths[lits:], ofDistance)
}

// repeated reads one symbol of the code of lengths: a length, how often; -1 is the length before.
func (z *Reader) repeated(code *table) (n, value int, err error) {
	e, err := z.symbol(code)
	if err != nil {
		return 0, 0, err
	}
	symbol := int(e >> 16)
	switch symbol {
	case 16:
		n, err = z.number(2)
		return n + 3, -1, err
	case 17:
		n, err = z.number(3)
		return n + 3, 0, err
	case 18:
		n, err = z.number(7)
		return n + 11, 0, err
	}
	return 1, symbol, nil
}

// symbol takes the next code, bit by bit where the input ends.
func (z *Reader) symbol(t *table) (entry, error) {
	for {
		e := t.lookup(z.bits & (1<<z.n - 1))
		if n := uint(e>>8) & 31; n > 0 && n <= z.n {
			z.bits >>= n
			z.n -= n
			return e, nil
		}
		if z.n >= maxBits {
			return 0, fmt.Errorf("%w: a code that no symbol has", ErrCorrupt)
		}
		if err := z.need(z.n + 1); err != nil {
			return 0, err
		}
	}
}

// inflate decodes symbols until the block ends or out is full.
func (z *Reader) inflate() error {
	for z.w < outSize {
		if len(z.in)-z.pos < 32 {
			z.fill(32)
		}
		if err := z.fast(); err != nil || z.state != symbols || z.w >= outSize {
			return err
		}
		// Near the end of the input, one symbol.
		if err := z.slow(); err != nil || z.state != symbols {
			return err
		}
	}
	return nil
}

func (z *Reader) slow() error {
	e, err := z.symbol(&z.lit)
	switch {
	case err != nil:
		return err
	case e&isLiteral != 0:
		z.out[z.w] = byte(e >> 16)
		z.w++
		z.history++
		return nil
	case e&isEnd != 0:
		z.state = block
		return nil
	case e>>16 == 0:
		return fmt.Errorf("%w: a code that no symbol has", ErrCorrupt)
	}
	length, err := z.number(uint(e&0xff) - uint(e>>8)&31)
	if err != nil {
		return err
	}
	d, err := z.symbol(&z.dist)
	if err != nil {
		return err
	}
	distance, err := z.number(uint(d&0xff) - uint(d>>8)&31)
	if err != nil {
		return err
	}
	length, distance = length+int(e>>16), distance+int(d>>16)
	if d>>16 == 0 || distance > z.history {
		return fmt.Errorf("%w: a copy from %d bytes before, there are %d", ErrCorrupt, distance, z.history)
	}
	repeat(z.out, z.w, distance, length)
	z.w += length
	z.history += length
	return nil
}

// repeat copies length bytes from distance before w; up to 7 more are overwritten.
func repeat(out []byte, w, distance, length int) {
	if distance >= 8 {
		from, to := out[w-distance:w-distance+length+8], out[w:w+length+8]
		for i := 0; i < length; i += 8 {
			binary.LittleEndian.PutUint64(to[i:], binary.LittleEndian.Uint64(from[i:]))
		}
		return
	}
	if distance == 1 {
		to, b := out[w:w+length], out[w-1]
		for i := range to {
			to[i] = b
		}
		return
	}
	for i := w; i < w+length; i++ {
		out[i] = out[i-distance]
	}
}

// fast decodes while there are 24 bytes of input and room for a copy, without asking again for either.
func (z *Reader) fast() error {
	in, out, pos, w := z.in, z.out, z.pos, z.w
	bits, n := z.bits, z.n
	lit, dist := z.lit.entries, z.dist.entries
	if len(lit) < 1<<litBits || len(dist) < 1<<distBits {
		return fmt.Errorf("%w: no table", ErrCorrupt)
	}
	litSecond, distSecond := uint64(1)<<z.lit.second-1, uint64(1)<<z.dist.second-1
	begin := w - z.history
	var err error
	for pos+24 <= len(in) && w < outSize {
		bits |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56 // at least as many
		e := lit[bits&(1<<litBits-1)]
		if e&isLiteral != 0 { // up to three by the first look: 33 bits
			out[w] = byte(e >> 16)
			w++
			bits >>= e & 63
			n -= uint(e & 63)
			if e = lit[bits&(1<<litBits-1)]; e&isLiteral != 0 {
				out[w] = byte(e >> 16)
				w++
				bits >>= e & 63
				n -= uint(e & 63)
				if e = lit[bits&(1<<litBits-1)]; e&isLiteral != 0 {
					out[w] = byte(e >> 16)
					w++
					bits >>= e & 63
					n -= uint(e & 63)
					continue
				}
			}
			bits |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
			pos += int((63 - n) >> 3)
			n |= 56
		}
		if e&isSecond != 0 {
			e = lit[int(e>>16)+int(bits>>litBits&litSecond)]
		}
		if e&(isLiteral|isEnd) != 0 {
			bits >>= e & 63
			n -= uint(e & 63)
			if e&isEnd != 0 {
				z.state = block
				break
			}
			out[w] = byte(e >> 16)
			w++
			continue
		}
		// A length of at most 20 bits, a distance of at most 28.
		length := int(e>>16) + int(bits&(1<<(e&63)-1)>>(e>>8&31))
		bits >>= e & 63
		n -= uint(e & 63)
		d := dist[bits&(1<<distBits-1)]
		if d&isSecond != 0 {
			d = dist[int(d>>16)+int(bits>>distBits&distSecond)]
		}
		distance := int(d>>16) + int(bits&(1<<(d&63)-1)>>(d>>8&31))
		bits >>= d & 63
		n -= uint(d & 63)
		if e>>16 == 0 || d>>16 == 0 || distance > w-begin {
			err = fmt.Errorf("%w: a copy from %d bytes before, there are %d", ErrCorrupt, distance, w-begin)
			break
		}
		repeat(out, w, distance, length)
		w += length
	}
	z.pos, z.w, z.bits, z.n, z.history = pos, w, bits, n, w-begin
	return err
}
