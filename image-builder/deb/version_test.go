package deb_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/internal/testenv"
)

// ordered holds versions from old to new; equal ones share a line.
var ordered = [][]string{
	{"0~~"}, {"0~~a"}, {"0~"}, {"0", "00", "0-0", "0:0", "0-00"},
	{"0a"}, {"0+"}, {"0.0"}, {"0.9"}, {"1~rc1-1"}, {"1~rc1-1+b1"},
	{"1.0~beta1~svc1"}, {"1.0~beta1"}, {"1.0", "1.00", "01.0", "1.0-0"}, {"1.0-0.1"}, {"1.0-1~bpo12+1.1"}, {"1.0-1"}, {"1.0-1+b1"}, {"1.0-1.1"}, {"1.0-2"},
	{"1.0-10"}, {"1.0a-1"}, {"1.0+dfsg-1"}, {"1.0.1"}, {"1.2.3"}, {"1.10"},
	{"2.41-12"}, {"2.41-12+deb13u1"}, {"2.41-12+deb13u10"},
	{"20250419"}, {"99999999999999999999999999999999999998"}, {"99999999999999999999999999999999999999"},
	{"a1"}, {"1:0"}, {"1:1.37.0-6+b3"}, {"2:0:1-1"},
}

func TestVersionOrder(t *testing.T) {
	for i, as := range ordered {
		for j, bs := range ordered {
			for _, a := range as {
				for _, b := range bs {
					want := min(1, max(-1, i-j))
					if got := parse(t, a).Compare(parse(t, b)); got != want {
						t.Errorf("compare %s with %s: got %d, want %d", a, b, got, want)
					}
				}
			}
		}
	}
}

func parse(t *testing.T, s string) deb.Version {
	t.Helper()
	v, err := deb.ParseVersion(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVersionErrors(t *testing.T) {
	for s, want := range map[string]string{
		"":               "no upstream version",
		"1:":             "no upstream version",
		"-1":             "no upstream version",
		"1.0-":           "nothing behind the last",
		"x:1":            `epoch "x" is not a number`,
		":1":             `epoch "" is not a number`,
		"99999999999:1":  "is too large",
		"1.0_2":          "'_' is not allowed in the upstream version",
		"1.0 2":          "' ' is not allowed in the upstream version",
		"1.0-1:2":        `epoch "1.0-1" is not a number`,
		"1:1.0-1:2":      "':' is not allowed in the revision",
		"1.0-1-\u00e4":   "is not allowed in the revision",
		"1\n":            "is not allowed in the upstream version",
		"1.0-1_1":        "'_' is not allowed in the revision",
		"-1:1.0":         "is not a number",
		"+1:1.0":         "is not a number",
		"2147483648:1.0": "is too large",
	} {
		_, err := deb.ParseVersion(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", s, err, want)
		}
	}
}

func TestVersionString(t *testing.T) {
	for _, s := range []string{"1", "1.0-1", "1:2-3-4", "2:0:1-1", "0:1:2"} {
		if got := parse(t, s).String(); got != s {
			t.Errorf("got %s, want %s", got, s)
		}
	}
}

// TestVersionJudge asks dpkg about each neighbouring and each distant pair.
func TestVersionJudge(t *testing.T) {
	tree := testenv.Tools(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i, line := range ordered {
		for _, b := range append(line, ordered[(i+1)%len(ordered)][0], ordered[(i*7+3)%len(ordered)][0]) {
			a := line[0]
			op := map[int]string{-1: "lt", 0: "eq", 1: "gt"}[parse(t, a).Compare(parse(t, b))]
			err := tree.Command(ctx, "dpkg", "--compare-versions", a, op, b).Run()
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
				t.Errorf("dpkg does not agree that %s %s %s", a, op, b)
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestVersionJudgeRandom asks dpkg about versions that nobody would write, from an alphabet in which every character matters: it must
// refuse what is refused here, and order the others as they are ordered here.
func TestVersionJudgeRandom(t *testing.T) {
	tree := testenv.Tools(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := rand.New(rand.NewPCG(1, 2))
	random := func() string {
		const alphabet = "00019aZ~~+.-:"
		b := make([]byte, 1+r.IntN(7))
		for i := range b {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
		return strings.TrimLeft(string(b), "-") // dpkg would take it for an option
	}
	counts := make(map[int]int)
	for range 400 {
		a, b := random(), random()
		v, errA := deb.ParseVersion(a)
		w, errB := deb.ParseVersion(b)
		op, want := map[int]string{-1: "lt", 0: "eq", 1: "gt"}[v.Compare(w)], 0
		if a == "" || b == "" { // dpkg takes an empty version for one that sorts before all
			continue
		}
		if errA != nil || errB != nil {
			want = 2
		}
		got := 0
		err := tree.Command(ctx, "dpkg", "--compare-versions", a, op, b).Run()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("dpkg --compare-versions %s %s %s: exit code %d, want %d; here %v, %v", a, op, b, got, want, errA, errB)
		}
		counts[want]++
	}
	if counts[0] < 50 || counts[2] < 50 {
		t.Errorf("got %d comparisons and %d refusals, want plenty of both", counts[0], counts[2])
	}
}

// verrevcmp is a transcription of dpkg's function of that name (lib/dpkg/version.c), as the oracle of FuzzVersion.
func verrevcmp(a, b string) int {
	at := func(s string, i int) byte {
		if i < len(s) {
			return s[i]
		}
		return 0
	}
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	order := func(c byte) int {
		switch {
		case digit(c):
			return 0
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			return int(c)
		case c == '~':
			return -1
		case c != 0:
			return int(c) + 256
		}
		return 0
	}
	i, j := 0, 0
	for at(a, i) != 0 || at(b, j) != 0 {
		firstDiff := 0
		for (at(a, i) != 0 && !digit(at(a, i))) || (at(b, j) != 0 && !digit(at(b, j))) {
			if ac, bc := order(at(a, i)), order(at(b, j)); ac != bc {
				return ac - bc
			}
			i++
			j++
		}
		for at(a, i) == '0' {
			i++
		}
		for at(b, j) == '0' {
			j++
		}
		for digit(at(a, i)) && digit(at(b, j)) {
			if firstDiff == 0 {
				firstDiff = int(at(a, i)) - int(at(b, j))
			}
			i++
			j++
		}
		if digit(at(a, i)) {
			return 1
		}
		if digit(at(b, j)) {
			return -1
		}
		if firstDiff != 0 {
			return firstDiff
		}
	}
	return 0
}

func sign(n int) int { return min(1, max(-1, n)) }

func FuzzVersion(f *testing.F) {
	for _, line := range ordered {
		f.Add(line[0], "1.0-1", "2:1~rc")
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		var v [3]deb.Version
		for i, s := range []string{a, b, c} {
			var err error
			if v[i], err = deb.ParseVersion(s); err != nil {
				return
			}
			again, err := deb.ParseVersion(v[i].String())
			if err != nil || again != v[i] {
				t.Fatalf("%q prints as %q, which reads as %v, %v", s, v[i], again, err)
			}
		}
		want := sign(v[0].Epoch - v[1].Epoch)
		for _, part := range [][2]string{{v[0].Upstream, v[1].Upstream}, {v[0].Revision, v[1].Revision}} {
			if want == 0 {
				want = sign(verrevcmp(part[0], part[1]))
			}
		}
		if got := v[0].Compare(v[1]); got != want || got != -v[1].Compare(v[0]) {
			t.Fatalf("%q against %q: got %d and %d the other way round, dpkg %d", a, b, got, v[1].Compare(v[0]), want)
		}
		if v[0].Compare(v[1]) <= 0 && v[1].Compare(v[2]) <= 0 && v[0].Compare(v[2]) > 0 {
			t.Fatalf("%q <= %q <= %q, and yet %q > %q", a, b, c, a, c)
		}
	})
}
