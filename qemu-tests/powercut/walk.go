package powercut

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/proa-os/proa/qemu-tests/vm/blklog"
)

// Options say how a log is walked through.
type Options struct {
	// Seed is 0 for the order of the log; any other has the writes between two flushes become durable in an order drawn with it.
	Seed uint64
	// Torn is in how many places a write is torn at most, where it may decide what boots; elsewhere once.
	Torn int
	// At, if not nil, is told every moment in which a machine would come up, and looks at the disk.
	At func(Moment) error
}

// A Moment is one in which the power could go.
type Moment struct {
	Entry int  // of the log: the last one of which something has been written
	Torn  bool // not all of it
	Flush bool // everything before is durable
	Picks Picks
	log   *blklog.Log
	part  blklog.Entry // what was written
}

func (m Moment) String() string {
	switch {
	case m.Flush:
		return fmt.Sprintf("at the flush in entry %d of %d", m.Entry+1, len(m.log.Entries))
	case m.Torn:
		return fmt.Sprintf("in entry %d of %d, with %d bytes at %d of its %d", m.Entry+1, len(m.log.Entries), m.part.Length, m.part.Offset, m.log.Entries[m.Entry].Length)
	}
	return fmt.Sprintf("after entry %d of %d, %d bytes at %d", m.Entry+1, len(m.log.Entries), m.part.Length, m.part.Offset)
}

// A Tally counts the moments that were judged.
type Tally struct {
	Flushes, Writes, Torn int
	Tries                 int            // moments in which a loader would try a release
	Versions              map[string]int // moments by what would be started
	Failed                int
}

// maxFailures are named; more are only counted.
const maxFailures = 20

// A walk is one way through a log.
type walk struct {
	Options
	log   *blklog.Log
	disk  *Disk
	rand  *rand.Rand
	tally Tally
	errs  []error
}

func newWalk(log *blklog.Log, d *Disk, o Options) *walk {
	return &walk{Options: o, log: log, disk: d, rand: rand.New(rand.NewPCG(o.Seed, 0)), tally: Tally{Versions: map[string]int{}}}
}

// Walk replays a log onto the disk with which it began, and judges it after every write and in the middle of them. The error
// names the moments in which the machine would not come up.
func Walk(log *blklog.Log, d *Disk, o Options) (Tally, error) {
	w := newWalk(log, d, o)
	for begin := 0; begin < len(log.Entries); {
		end := begin
		for end < len(log.Entries) && log.Entries[end].Flags&(blklog.Flush|blklog.FUA) == 0 {
			end++
		}
		end = min(end+1, len(log.Entries))
		if err := w.stretch(begin, end); err != nil {
			return w.tally, err
		}
		begin = end
	}
	if n := w.tally.Failed - len(w.errs); n > 0 {
		w.errs = append(w.errs, fmt.Errorf("and %d more", n))
	}
	return w.tally, errors.Join(w.errs...)
}

// stretch replays what is between two flushes, and the second flush.
func (w *walk) stretch(begin, end int) error {
	order := make([]int, end-begin)
	for i := range order {
		order[i] = begin + i
	}
	if w.Seed != 0 {
		order = shuffle(w.log.Entries, order, w.rand)
	}
	for _, i := range order {
		e := w.log.Entries[i]
		if e.Flags&blklog.Mark != 0 || e.Length == 0 {
			continue
		}
		if err := w.tear(i); err != nil {
			return err
		}
		if err := w.log.Apply(w.disk, e); err != nil {
			return fmt.Errorf("replay entry %d: %w", i, err)
		}
		w.tally.Writes++
		if err := w.judge(Moment{Entry: i, part: e}); err != nil {
			return err
		}
	}
	if w.log.Entries[end-1].Flags&(blklog.Flush|blklog.FUA) == 0 {
		return nil // the log ends without a flush
	}
	w.tally.Flushes++
	return w.judge(Moment{Entry: end - 1, Flush: true})
}

// tear has only parts of a write reach the disk: its beginning in the log's order, its end in another, more and more of it.
func (w *walk) tear(i int) error {
	e := w.log.Entries[i]
	if e.Flags&blklog.Discard != 0 {
		return nil // a disk may do it by and by, but nothing is known of how
	}
	sectors := e.Length / sectorSize
	places := int64(1)
	if w.disk.Decides(e.Offset, e.Length) {
		places = int64(w.Torn)
	}
	places = min(places, sectors-1)
	for k := range places {
		cut := (k + 1) * sectors / (places + 1) * sectorSize
		part := e.Part(0, cut)
		if w.Seed != 0 {
			part = e.Part(e.Length-cut, e.Length)
		}
		if err := w.log.Apply(w.disk, part); err != nil {
			return fmt.Errorf("tear entry %d: %w", i, err)
		}
		w.tally.Torn++
		if err := w.judge(Moment{Entry: i, Torn: true, part: part}); err != nil {
			return err
		}
	}
	return nil
}

// judge counts what would be started, or keeps why nothing would.
func (w *walk) judge(m Moment) error {
	m.log = w.log
	picks, err := w.disk.Judge()
	if err != nil {
		w.tally.Failed++
		if len(w.errs) < maxFailures {
			w.errs = append(w.errs, fmt.Errorf("%v: %w", m, err))
		}
		return nil
	}
	for _, p := range picks {
		w.tally.Versions[p.Version]++
		if p.Try {
			w.tally.Tries++
		}
	}
	if w.At == nil {
		return nil
	}
	m.Picks = picks
	return w.At(m)
}

// shuffle draws an order in which those that touch the same bytes follow each other as before.
func shuffle(entries []blklog.Entry, order []int, r *rand.Rand) []int {
	groups := map[int][]int{} // by representative, in order
	var member []int          // representative of each, in the drawn order
	for _, g := range overlapping(entries, order) {
		for _, i := range g {
			groups[g[0]] = append(groups[g[0]], i)
			member = append(member, g[0])
		}
	}
	r.Shuffle(len(member), func(i, j int) { member[i], member[j] = member[j], member[i] })
	drawn := make([]int, 0, len(order))
	for _, m := range member {
		drawn = append(drawn, groups[m][0])
		groups[m] = groups[m][1:]
	}
	return drawn
}

// overlapping groups entries whose ranges touch, directly or over others; in a group they are in the order of the log.
func overlapping(entries []blklog.Entry, order []int) [][]int {
	byOffset := slices.Clone(order)
	slices.SortStableFunc(byOffset, func(a, b int) int { return int(min(max(entries[a].Offset-entries[b].Offset, -1), 1)) })
	var groups [][]int
	end := int64(-1)
	for _, i := range byOffset {
		e := entries[i]
		if len(groups) == 0 || e.Offset >= end {
			groups = append(groups, nil)
			end = e.Offset
		}
		last := len(groups) - 1
		groups[last] = append(groups[last], i)
		end = max(end, e.Offset+e.Length)
	}
	for _, g := range groups {
		slices.Sort(g)
	}
	return groups
}
