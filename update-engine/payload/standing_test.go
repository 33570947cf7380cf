package payload

import (
	"bytes"
	"slices"
	"testing"
)

// What is copied before the first made byte may be the prefix of that: a counter now and then in an image that is otherwise the same.
func TestPrefixOfWhatWasCopied(t *testing.T) {
	oldRoot, boot := noise(1, 2*MaxSegment), noise(2, 10_000)
	newRoot := slices.Clone(oldRoot)
	for at := 10_000; at < len(newRoot); at += 200_000 {
		copy(newRoot[at:], "this is the new release")
	}
	d, src := deltaOf(oldRoot, boot, newRoot, boot)
	makeDelta(t, d, src) // proves it
}

// Standing finds the last checkpoint before the first byte that is not what the payload makes, and Apply finishes from there.
func TestStanding(t *testing.T) {
	oldRoot, oldBoot := sample(1, 1<<20), sample(2, 300_000)
	newRoot := slices.Concat(noise(4, 5000), oldRoot[:len(oldRoot)/2], noise(5, 200_000), oldRoot[len(oldRoot)/2:len(oldRoot)-100], noise(6, 300_000))
	newBoot := slices.Concat(oldBoot[:200_000], noise(7, 100_000), newRoot[:100_000])
	d, src := deltaOf(oldRoot, oldBoot, newRoot, newBoot)
	var b bytes.Buffer
	m, err := CreateDelta(t.Context(), &b, d, Options{Segment: 64 << 10}, nil)
	if err != nil {
		t.Fatal(err)
	}
	src.NewRoot = bytes.NewReader(newRoot)
	for kind, whole := range map[Kind][]byte{RootImage: newRoot, BootProgram: newBoot} {
		if k := m.Standing(kind, bytes.NewReader(whole), src, nil); k.Written != int64(len(whole)) || k.Segment != len(m.Output(kind).Segments) {
			t.Errorf("%s: all of it stands, got %+v", kind, k)
		}
		if k := m.Standing(kind, bytes.NewReader(nil), src, nil); k != m.At(kind, 0) {
			t.Errorf("%s: nothing stands, got %+v", kind, k)
		}
		for at := 0; at < len(whole); at += 37_123 {
			for name, have := range map[string][]byte{"damaged": flipped(whole, at), "cut": whole[:at]} {
				k := m.Standing(kind, bytes.NewReader(have), src, nil)
				next := m.At(kind, k.Segment+1)
				if k.Written > int64(at) || k.Segment < len(m.Output(kind).Segments) && next.Written <= int64(at) || k != m.At(kind, k.Segment) {
					t.Errorf("%s %s at %d: got %+v, the next checkpoint is %+v", kind, name, at, k, next)
				}
				sink := &kept{outputs: map[Kind]*output{RootImage: {newRoot}, kind: {slices.Clone(have[:k.Written])}}}
				if err := m.Apply(bytes.NewReader(b.Bytes()[k.Read:]), src, k, sink); err != nil {
					t.Errorf("%s %s at %d, from %+v: %v", kind, name, at, k, err)
				} else if !bytes.Equal(sink.outputs[kind].data, whole) {
					t.Errorf("%s %s at %d, from %+v: not what was to be made", kind, name, at, k)
				}
			}
		}
	}
	// A source that does not give what was copied: nothing behind it stands.
	src.Root = bytes.NewReader(make([]byte, len(oldRoot)))
	if k := m.Standing(RootImage, bytes.NewReader(newRoot), src, nil); k.Written > 5000 {
		t.Errorf("from another source: got %+v", k)
	}
}

func flipped(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 1
	return b
}
