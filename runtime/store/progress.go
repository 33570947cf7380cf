package store

import (
	"sync"

	"github.com/proa-os/proa/runtime/image"
)

// An Event is progress of one layer, in bytes.
type Event struct {
	Layer image.Digest
	Done  int64 // of the blob
	Total int64
	State State
}

// A State is how far a layer is.
type State int

// States of a layer.
const (
	Waiting  State = iota
	Fetching       // bytes come
	Ready          // verified
	Unpacked
	Present // it was there before
)

// locked makes report callable by all goroutines.
func locked(report func(Event)) func(Event) {
	if report == nil {
		return func(Event) {}
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		report(e)
	}
}
