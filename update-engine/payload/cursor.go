package payload

// A cursor walks along an output, over the made and the copied bytes of its runs.
type cursor struct {
	run  Run // what is left of the current one
	next []Run
	at   int64 // address in the output
}

func newCursor(runs []Run) cursor { return cursor{next: runs} }

// here returns how many made bytes follow, or, if none does, how many copied ones; both are zero at the end.
func (c *cursor) here() (made, copied int64) {
	for c.run.Made == 0 && c.run.Copied == 0 && len(c.next) > 0 {
		c.run, c.next = c.next[0], c.next[1:]
	}
	if c.run.Made > 0 {
		return c.run.Made, 0
	}
	return 0, c.run.Copied
}

// step goes over n bytes, no more than here returned.
func (c *cursor) step(n int64) {
	if c.run.Made > 0 {
		c.run.Made -= n
	} else {
		c.run.Copied -= n
	}
	c.at += n
}

// skipCopies goes to the next made byte or the end.
func (c *cursor) skipCopies() {
	for _, n := c.here(); n > 0; _, n = c.here() {
		c.step(n)
	}
}

// skipMade goes over n made bytes, and the copied ones between.
func (c *cursor) skipMade(n int64) {
	for n > 0 {
		c.skipCopies()
		made, _ := c.here()
		if made == 0 {
			return // fewer are left; only an invalid manifest gets here, and parseParts counts
		}
		k := min(made, n)
		c.step(k)
		n -= k
	}
}
