package stage

import (
	"crypto/sha256"
	"fmt"
	"hash"

	"github.com/proa-os/proa/internal/digest"
)

// A Key collects the inputs of a stage. Values are framed by their length, so no two lists of inputs have the same key.
type Key struct {
	h hash.Hash
}

// NewKey begins the key of the stage called name.
func NewKey(name string) *Key {
	k := &Key{h: sha256.New()}
	return k.Add("stage", name)
}

// Add adds an input. Order counts.
func (k *Key) Add(name, value string) *Key {
	fmt.Fprintf(k.h, "%d:%s=%d:%s\n", len(name), name, len(value), value)
	return k
}

// Sum returns the key.
func (k *Key) Sum() digest.SHA256 { return digest.SHA256(k.h.Sum(nil)) }

// Self returns the sum of the running program: with it in a key, a change of the builder's code is a change of the key. It reads what the
// kernel runs (proc(5)), not what is under the program's name now: go build may have put a newer one there.
func Self() (digest.SHA256, error) {
	sum, err := sum("/proc/self/exe")
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("hash the builder: %w", err)
	}
	return sum, nil
}
