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
	free    int
	waiting []waiting
}

type waiting struct {
	lasts time.Duration
	enter chan struct{}
}

// turns is the queue of all stories, with as many places as PROA_MACHINES says: machines wait a third of their time.
var turns = sync.OnceValue(func() *queue {
	places, err := strconv.Atoi(os.Getenv("PROA_MACHINES"))
	if err != nil || places < 1 {
		places = 2
	}
	return &queue{gather: 200 * time.Millisecond, free: places}
})

// enter waits for a place and returns how to leave it.
func (q *queue) enter(lasts time.Duration) (leave func()) {
	w := waiting{lasts, make(chan struct{})}
	q.mu.Lock()
	q.waiting = append(q.waiting, w)
	q.mu.Unlock()
	time.AfterFunc(q.gather, func() { q.admit(0) })
	<-w.enter
	return func() { q.admit(1) }
}

// turn waits for a place until the end of the test or until the leave that it returns, and says how long the turn took: go test also counts
// the waiting.
func turn(t *testing.T, lasts time.Duration) (leave func()) {
	t.Helper()
	out := turns().enter(lasts)
	start := time.Now()
	leave = sync.OnceFunc(func() {
		t.Logf("its turn took %.0f s", time.Since(start).Seconds())
		out()
	})
	t.Cleanup(leave)
	return leave
}

// admit lets those in who last longest, after more places became free.
func (q *queue) admit(freed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free += freed
	slices.SortStableFunc(q.waiting, func(a, b waiting) int { return cmp.Compare(b.lasts, a.lasts) })
	for q.free > 0 && len(q.waiting) > 0 {
		close(q.waiting[0].enter)
		q.waiting = q.waiting[1:]
		q.free--
	}
}

func TestQueue(t *testing.T) {
	q := &queue{gather: time.Second, free: 1}
	var order []time.Duration
	var all sync.WaitGroup
	for _, lasts := range []time.Duration{1, 3, 2, 3} {
		all.Go(func() {
			leave := q.enter(lasts)
			order = append(order, lasts) // one at a time: there is one place
			leave()
		})
	}
	all.Wait()
	if want := []time.Duration{3, 3, 2, 1}; !slices.Equal(order, want) {
		t.Errorf("entered in order %v, want %v", order, want)
	}
	if q.free != 1 {
		t.Errorf("%d places are free, want 1", q.free)
	}
}
