package installtest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
)

const sector = 512 // what a disk writes whole or not at all

// A Part is how much of a write reached the disk.
type Part int

// The parts. A scattered write reached the disk in some of its sectors.
const (
	Lost Part = iota
	Kept
	FirstHalf
	SecondHalf
	Scattered
)

// A Fate is what became of all that was under way.
type Fate struct {
	Name  string
	parts []Part // of the unsynced writes, in their order
	names int    // which outcome of the change of the folder
}

// FullDepth reports whether tests should try far more possibilities than a unit test has time for (PROA_POWERCUT=full, as of the stories).
func FullDepth() bool { return os.Getenv("PROA_POWERCUT") == "full" }

// pending lists the unsynced writes of all files, oldest of a file first.
func (d *Disk) pending() (n int) {
	for _, f := range d.files() {
		n += len(f.pending)
	}
	return n
}

// files lists every file that has a name, and the slot, in a fixed order.
func (d *Disk) files() []*File {
	list := []*File{d.Slot}
	for _, names := range []map[string]*File{d.durable, d.names} {
		for _, n := range slices.Sorted(maps.Keys(names)) {
			if !slices.Contains(list, names[n]) {
				list = append(list, names[n])
			}
		}
	}
	return list
}

// Fates lists what can have become of what was under way when the power went. With few unsynced writes it is every subset of them,
// and the last in parts; with many it is all, none, each alone and each missing, the first n, and a few at random.
func (d *Disk) Fates() []Fate {
	n := d.pending()
	var fates []Fate
	add := func(name string, part func(i int) Part) {
		f := Fate{Name: name, parts: make([]Part, n)}
		for i := range n {
			f.parts[i] = part(i)
		}
		fates = append(fates, f)
	}
	pick := func(yes bool) Part {
		if yes {
			return Kept
		}
		return Lost
	}
	add("none kept", func(int) Part { return Lost })
	if n > 0 {
		add("all kept", func(int) Part { return Kept })
		for _, last := range []Part{FirstHalf, SecondHalf, Scattered} {
			add(fmt.Sprintf("last torn (%d)", last), func(i int) Part {
				if i == n-1 {
					return last
				}
				return Kept
			})
		}
		add("all torn", func(int) Part { return Scattered })
	}
	switch subsets := 4; {
	case n > 1 && n <= subsets:
		for set := 1; set < 1<<n-1; set++ {
			add(fmt.Sprintf("subset %b", set), func(i int) Part { return pick(set>>i&1 == 1) })
		}
	case n > subsets:
		step := 1
		if !FullDepth() {
			step = (n + 3) / 4
		}
		for k := 0; k < n; k += step {
			add(fmt.Sprintf("only write %d", k), func(i int) Part { return pick(i == k) })
			add(fmt.Sprintf("all but write %d", k), func(i int) Part { return pick(i != k) })
			add(fmt.Sprintf("first %d", k), func(i int) Part { return pick(i < k) })
		}
		random := 1
		if FullDepth() {
			random = 8
		}
		for seed := range random {
			r := rand.New(rand.NewPCG(uint64(seed), uint64(n)))
			add(fmt.Sprintf("random %d", seed), func(int) Part { return Part(r.IntN(int(Scattered) + 1)) })
		}
	}
	return d.withNames(fates)
}

// withNames multiplies fates by the outcomes of the change of the folder.
func (d *Disk) withNames(fates []Fate) []Fate {
	var outcomes []string
	switch {
	case d.flight == nil:
		return fates
	case d.flight.newName == "":
		outcomes = []string{"name there", "name gone", "name there and bytes gone"}
	default:
		outcomes = []string{"old name", "new name", "both names", "no name", "old name and the new one of an empty file"}
	}
	var all []Fate
	for _, f := range fates {
		for k, o := range outcomes {
			all = append(all, Fate{f.Name + ", " + o, f.parts, k})
		}
	}
	return all
}

// After is the disk that comes back with the power.
func (d *Disk) After(fate Fate) *Disk {
	after := &Disk{Room: d.Room, durable: map[string]*File{}}
	copies := map[*File]*File{}
	parts := fate.parts
	for _, f := range d.files() {
		c := &File{d: after, esp: f.esp, durable: bytes.Clone(f.durable)}
		for _, w := range f.pending {
			c.durable = w.settle(c.durable, parts[0])
			parts = parts[1:]
		}
		c.seen = bytes.Clone(c.durable)
		copies[f] = c
	}
	after.Slot = copies[d.Slot]
	for name, f := range d.durable {
		after.durable[name] = copies[f]
	}
	for name, f := range d.names { // a file whose creation was not synced exists if any of it was
		if d.durable[name] == nil && d.flight == nil && len(copies[f].durable) > 0 {
			after.durable[name] = copies[f]
		}
	}
	if c := d.flight; c != nil {
		after.settleNames(c, copies[c.file], fate.names)
	}
	after.names = maps.Clone(after.durable)
	return after
}

func (d *Disk) settleNames(c *change, f *File, outcome int) {
	switch {
	case c.newName == "" && outcome == 1:
		delete(d.durable, c.oldName)
	case c.newName == "" && outcome == 2:
		f.free()
	case c.newName != "" && outcome == 1:
		delete(d.durable, c.oldName)
		d.durable[c.newName] = f
	case c.newName != "" && outcome == 2:
		d.durable[c.newName] = f
	case c.newName != "" && outcome == 3:
		delete(d.durable, c.oldName)
	case c.newName != "" && outcome == 4:
		d.durable[c.newName] = &File{d: d, esp: true}
	}
}

// settle applies the part of w that reached the disk.
func (w write) settle(b []byte, part Part) []byte {
	half := len(w.b) / 2
	switch {
	case part == Lost || w.truncate && part == SecondHalf:
		return b
	case part == Kept || w.truncate:
		return w.apply(b)
	case part == FirstHalf:
		return write{off: w.off, b: w.b[:half]}.apply(b)
	case part == SecondHalf:
		return write{off: w.off + int64(half), b: w.b[half:]}.apply(b)
	}
	r := rand.New(rand.NewPCG(uint64(w.off), uint64(len(w.b))))
	for at := 0; at < len(w.b); at += sector {
		if r.IntN(2) == 0 {
			b = write{off: w.off + int64(at), b: w.b[at:min(at+sector, len(w.b))]}.apply(b)
		}
	}
	return b
}
