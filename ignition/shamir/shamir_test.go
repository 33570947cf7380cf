package shamir

import (
	"bytes"
	"strings"
	"testing"
)

// Every subset of as many points as the threshold gives the key, and no smaller one does.
func TestEverySubset(t *testing.T) {
	f := NewField()
	if !f.p.ProbablyPrime(40) {
		t.Fatal("the prime is none")
	}
	const points = 5
	for threshold := 1; threshold <= points; threshold++ {
		key, list, err := f.Split(threshold, points)
		if err != nil {
			t.Fatal(err)
		}
		for subset := 1; subset < 1<<points; subset++ {
			var some [][]byte
			for n := range points {
				if subset>>n&1 == 1 {
					some = append(some, list[n])
				}
			}
			got, err := f.Recover(some)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(got, key) != (len(some) >= threshold) {
				t.Errorf("threshold %d, points %05b: recovered %v", threshold, subset, bytes.Equal(got, key))
			}
		}
	}
}

// By hand: 7 + 3x over the field of 251, at 1, 2 and 250.
func TestByHand(t *testing.T) {
	f, err := ParseField([]byte{251})
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Recover([][]byte{{1, 10}, {250, 4}})
	if err != nil || !bytes.Equal(got, []byte{7}) {
		t.Errorf("got %v, %v", got, err)
	}
	for want, points := range map[string][][]byte{"two points are the same": {{1, 10}, {1, 11}}, "expected a point of 2 bytes, found 3": {{1, 10, 2}}} {
		if _, err := f.Recover(points); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestWrongFields(t *testing.T) {
	for _, b := range [][]byte{nil, {0}, {1, 0}, bytes.Repeat([]byte{255}, maxField+1)} {
		if _, err := ParseField(b); err == nil {
			t.Errorf("%.8x is a field", b)
		}
	}
	f := NewField()
	if len(f.Bytes()) != size {
		t.Fatal(len(f.Bytes()))
	}
	for _, tc := range [][2]int{{0, 1}, {2, 1}, {-1, 3}} {
		if _, _, err := f.Split(tc[0], tc[1]); err == nil {
			t.Errorf("%d of %d", tc[0], tc[1])
		}
	}
}
