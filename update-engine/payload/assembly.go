package payload

// An assembly collects what describes an output, in the order of its bytes, and joins what can be.
type assembly struct {
	runs         []Run
	instructions []instruction
	tables       []table
	added        bool // an instruction reads a source
	at           int64
}

// copy says that the next n bytes are those of the source at a shift.
func (a *assembly) copy(n, shift int64) {
	if n == 0 {
		return
	}
	a.at += n
	if k := len(a.runs); k > 0 && a.runs[k-1].Copied > 0 && a.runs[k-1].Shift == shift {
		a.runs[k-1].Copied += n
		return
	}
	if k := len(a.runs); k > 0 && a.runs[k-1].Copied == 0 {
		a.runs[k-1].Copied, a.runs[k-1].Shift = n, shift
		return
	}
	a.runs = append(a.runs, Run{Copied: n, Shift: shift})
}

// made says that the next n bytes are made.
func (a *assembly) made(n int64) {
	a.at += n
	if k := len(a.runs); k > 0 && a.runs[k-1].Copied == 0 {
		a.runs[k-1].Made += n
		return
	}
	a.runs = append(a.runs, Run{Made: n})
}

// add says that the next n bytes are like those of the source at a shift.
func (a *assembly) add(n, shift int64) {
	if n == 0 {
		return
	}
	a.made(n)
	a.added = true
	if k := len(a.instructions); k > 0 && a.instructions[k-1].extra == 0 && a.instructions[k-1].shift == shift {
		a.instructions[k-1].add += n
		return
	}
	a.instructions = append(a.instructions, instruction{shift: shift, add: n})
}

// extra says that the next n bytes are new.
func (a *assembly) extra(n int64) {
	if n == 0 {
		return
	}
	a.made(n)
	if k := len(a.instructions); k > 0 {
		a.instructions[k-1].extra += n
		return
	}
	a.instructions = append(a.instructions, instruction{extra: n})
}

// layout returns what was collected. Without a source that is read, segments are best replaced.
func (a *assembly) layout() layout {
	l := layout{runs: a.runs}
	if a.added {
		l.instructions, l.tables = a.instructions, a.tables
	}
	return l
}
