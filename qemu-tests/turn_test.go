package qemutests

import (
	"cmp"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// A queue lets a few stories run beside each other, the longest first: one that lasts for a quarter of an hour must not be the last to
// begin. go test's own -parallel would let them in as they come.
type queue struct {
	gather  time.Duration // how long who comes waits for others who come at once
	mu      sync.Mutex
	free    int // shares
	waiting []waiting
}

type waiting struct {
	lasts time.Duration
	share int
	enter chan struct{}
}

// A place has two shares. A story whose machines wait more than they work takes one.
const wholePlace, halfPlace = 2, 1

// turns is the queue of all stories, with as many places as PROA_MACHINES says: machines wait a third of their time.
var turns = sync.OnceValue(func() *queue {
	places, err := strconv.Atoi(os.Getenv("PROA_MACHINES"))
	if err != nil || places < 1 {
		places = 2
	}
	return &queue{gather: 200 * time.Millisecond, free: places * wholePlace}
})

// enter waits for a place and returns how to leave it.
func (q *queue) enter(lasts time.Duration, share int) (leave func()) {
	w := waiting{lasts, share, make(chan struct{})}
	q.mu.Lock()
	q.waiting = append(q.waiting, w)
	q.mu.Unlock()
	time.AfterFunc(q.gather, func() { q.admit(0) })
	<-w.enter
	return func() { q.admit(share) }
}

// turn waits for a place until the end of the test or until the leave that it returns, and says how long the turn took: go test also counts
// the waiting.
func turn(t *testing.T, lasts time.Duration, share int) (leave func()) {
	t.Helper()
	out := turns().enter(lasts, share)
	start := time.Now()
	leave = sync.OnceFunc(func() {
		t.Logf("its turn took %.0f s", time.Since(start).Seconds())
		out()
	})
	t.Cleanup(leave)
	return leave
}

// admit lets those in who last longest, after more shares became free. Nobody passes one who waits for more of them.
func (q *queue) admit(freed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free += freed
	slices.SortStableFunc(q.waiting, func(a, b waiting) int { return cmp.Compare(b.lasts, a.lasts) })
	for len(q.waiting) > 0 && q.free >= q.waiting[0].share {
		q.free -= q.waiting[0].share
		close(q.waiting[0].enter)
		q.waiting = q.waiting[1:]
	}
}

func TestQueue(t *testing.T) {
	q := &queue{gather: time.Second, free: wholePlace}
	var order []time.Duration
	var all sync.WaitGroup
	for _, lasts := range []time.Duration{1, 3, 2, 3} {
		all.Go(func() {
			leave := q.enter(lasts, wholePlace)
			order = append(order, lasts) // one at a time: there is one place
			leave()
		})
	}
	all.Wait()
	if want := []time.Duration{3, 3, 2, 1}; !slices.Equal(order, want) {
		t.Errorf("entered in order %v, want %v", order, want)
	}
	if q.free != wholePlace {
		t.Errorf("%d shares are free, want %d", q.free, wholePlace)
	}
	first, second := q.enter(2, halfPlace), q.enter(1, halfPlace) // beside each other, or this would wait for ever
	first()
	second()
}
