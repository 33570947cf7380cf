package deb_test

import (
	"context"
	"errors"
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

func FuzzVersion(f *testing.F) {
	for _, line := range ordered {
		f.Add(line[0], "1.0-1")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		v, errA := deb.ParseVersion(a)
		w, errB := deb.ParseVersion(b)
		if errA == nil {
			again, err := deb.ParseVersion(v.String())
			if err != nil || again.Compare(v) != 0 {
				t.Fatalf("%q prints as %q, which reads as %v, %v", a, v, again, err)
			}
		}
		if errA == nil && errB == nil && v.Compare(w) != -w.Compare(v) {
			t.Fatalf("%q against %q: %d and %d", a, b, v.Compare(w), w.Compare(v))
		}
	})
}
