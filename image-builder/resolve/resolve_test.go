package resolve_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/resolve"
	"github.com/proa-os/proa/internal/digest"
)

// index writes packages in the form "name version: field value; field value".
func index(t *testing.T, suite, text string) []archive.Package {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(text) {
		head, fields, _ := strings.Cut(strings.TrimSpace(line), ":")
		if head == "" {
			continue
		}
		name, version, _ := strings.Cut(head, " ")
		fmt.Fprintf(&b, "Package: %s\nVersion: %s\nArchitecture: amd64\nSize: 1\nSHA256: %s\nFilename: pool/%[1]s_%s.deb\n",
			name, version, digest.Of([]byte(head)), suite)
		for f := range strings.SplitSeq(fields, ";") {
			if k, v, ok := strings.Cut(strings.TrimSpace(f), " "); ok {
				b.WriteString(k + ": " + v + "\n")
			}
		}
		b.WriteByte('\n')
	}
	list, err := archive.ParsePackages("index", suite, strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func names(list []archive.Package) string {
	var out []string
	for _, p := range list {
		out = append(out, p.Name)
	}
	return strings.Join(out, " ")
}

func TestClosure(t *testing.T) {
	for _, tc := range []struct {
		name             string
		index            string
		include, exclude string
		want             string
	}{
		{"chain", "a1 1: Depends b1; Pre-Depends c1\n b1 1: Depends d1\n c1 1\n d1 1: Depends a1\n e1 1", "a1", "", "a1 b1 c1 d1"},
		{"recommends are not looked at", "a1 1: Recommends b1; Suggests b1\n b1 1", "a1", "", "a1"},
		{"first alternative", "a1 1: Depends b1 | c1\n b1 1\n c1 1", "a1", "", "a1 b1"},
		{"alternative already there", "a1 1: Depends b1 | c1\n b1 1\n c1 1", "a1 c1", "", "a1 c1"},
		{"alternative by version", "a1 1: Depends b1 (>= 2) | c1\n b1 1\n c1 1", "a1", "", "a1 c1"},
		{"alternative that exists", "a1 1: Depends b1 | c1\n c1 1", "a1", "", "a1 c1"},
		{"other architecture", "a1 1: Depends b1 [arm64], c1 [amd64]\n c1 1", "a1", "", "a1 c1"},
		{"qualifier any", "a1 1: Depends b1:any\n b1 1", "a1", "", "a1 b1"},
		{"qualifier native", "a1 1: Depends b1:native\n b1 1", "a1", "", "a1 b1"},
		{"qualifier of this architecture", "a1 1: Depends b1:amd64\n b1 1", "a1", "", "a1 b1"},
		{"qualifier of another architecture", "a1 1: Depends b1:arm64 | c1\n b1 1\n c1 1", "a1", "", "a1 c1"},
		{"conflict with another architecture's", "a1 1: Conflicts b1:arm64; Breaks b1 [arm64]\n b1 1", "a1 b1", "", "a1 b1"},
		{"loop through Pre-Depends", "a1 1: Pre-Depends b1\n b1 1: Pre-Depends a1", "a1", "", "a1 b1"},
		{"depends on itself", "a1 1: Depends a1 (= 1)", "a1", "", "a1"},
		{"each operator", "a1 1: Depends b1 (<< 3), b1 (<= 2), b1 (= 2), b1 (>= 2), b1 (>> 1)\n b1 2", "a1", "", "a1 b1"},
		{"newest only", "a1 1: Depends b1 (<= 1) | c1\n b1 1\n b1 2\n c1 1", "a1", "", "a1 c1"},
		{"provider by an older version", "a1 1: Depends mail\n b1 1: Provides mail\n b1 2\n c1 1: Provides mail", "a1", "", "a1 c1"},
		{"several versioned provides", "a1 1: Depends api (= 3)\n b1 1: Provides api (= 2), api (= 3)", "a1", "", "a1 b1"},
		{"unversioned provide, unversioned conflict only", "a1 1: Conflicts mail (<< 2)\n b1 1: Provides mail", "a1 b1", "", "a1 b1"},
		{"virtual", "a1 1: Depends mail\n b1 1: Provides mail", "a1", "", "a1 b1"},
		{"virtual, chosen provider", "a1 1: Depends mail\n b1 1: Provides mail\n c1 1: Provides mail", "a1 c1", "", "a1 c1"},
		{"virtual with version", "a1 1: Depends mail (>= 2)\n b1 1: Provides mail (= 2)\n c1 1: Provides mail", "a1", "", "a1 b1"},
		{"real before virtual", "a1 1: Depends mail\n b1 1: Provides mail\n mail 1", "a1", "", "a1 mail"},
		{"ambiguous, but the next is clear", "a1 1: Depends mail | d1\n b1 1: Provides mail\n c1 1: Provides mail\n d1 1", "a1", "", "a1 d1"},
		{"exclude", "a1 1: Depends b1, d1\n b1 1: Depends c1\n c1 1\n d1 1", "a1", "b1", "a1 d1"},
		{"excluded counts as present", "a1 1: Depends b1 | c1\n b1 1\n c1 1", "a1", "b1", "a1"},
		{"excluded provider", "a1 1: Depends awk\n b1 1: Provides awk\n c1 1: Provides awk", "a1", "b1", "a1"},
		{"conflict with one that is not chosen", "a1 1: Conflicts b1; Breaks c1 (<< 2)\n b1 1\n c1 2", "a1 c1", "", "a1 c1"},
		{"conflict with what it provides itself", "a1 1: Conflicts mail; Provides mail", "a1", "", "a1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			list := index(t, "trixie", tc.index)
			for range 5 { // no order of the index changes the outcome
				got, err := resolve.Closure(list, "amd64", strings.Fields(tc.include), strings.Fields(tc.exclude))
				if err != nil || names(got) != tc.want {
					t.Fatalf("got %q, %v, want %q", names(got), err, tc.want)
				}
				rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			}
		})
	}
}

func TestHighestVersionOverSuites(t *testing.T) {
	all := append(index(t, "trixie", "a1 1.0-1\n b1 2"), index(t, "trixie-security", "a1 1.0-1+deb13u1\n b1 1")...)
	got, err := resolve.Closure(all, "amd64", []string{"a1", "b1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Suite != "trixie-security" || got[1].Suite != "trixie" {
		t.Errorf("got %s from %s and %s from %s, want security and trixie", got[0].Name, got[0].Suite, got[1].Name, got[1].Suite)
	}
}

// TestTwins: one version with two contents is a broken or hostile archive; taking either would be a guess.
func TestTwins(t *testing.T) {
	all := append(index(t, "trixie", "a1 1: Depends b1\n b1 1\n c1 1"), index(t, "trixie-security", "b1 1\n c1 1")...)
	for i := range all {
		if all[i].Name == "c1" {
			all[i].SHA256[0] += byte(i)
		}
	}
	for range 5 {
		got, err := resolve.Closure(all, "amd64", []string{"a1"}, nil)
		if err != nil || names(got) != "a1 b1" || got[1].Suite != "trixie" {
			t.Fatalf("the same file in two suites: got %v, %v", got, err)
		}
		_, err = resolve.Closure(all, "amd64", []string{"c1"}, nil)
		if err == nil || !strings.Contains(err.Error(), "c1 1 is in trixie and in trixie-security with different contents") {
			t.Fatalf("got %v, want both suites named", err)
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
}

func TestClosureErrors(t *testing.T) {
	for _, tc := range []struct {
		name             string
		index            string
		include, exclude string
		want             string
	}{
		{"empty", "a1 1", "", "", "include list is empty"},
		{"unknown", "a1 1", "b1", "", "include b1: no suite has such a package"},
		{"unknown, but virtual", "a1 1: Provides b1", "b1", "", "it is provided by a1"},
		{"unknown exclude", "a1 1", "a1", "b1", "exclude b1: no suite has such a package"},
		{"both lists", "a1 1", "a1", "a1", "a1 is both included and excluded"},
		{"useless exclude", "a1 1\n b1 1", "a1", "b1", "exclude b1: nothing would bring it in"},
		{"missing", "a1 1: Depends b1\n b1 3: Depends c1", "a1", "", "b1 3 <- a1 <- include list needs c1, which no suite has"},
		{"too old", "a1 1: Depends b1 (>= 2) | d1\n b1 1", "a1", "", "a1 1 <- include list needs b1 (>= 2) | d1, found only b1 1"},
		{"other architecture's", "a1 1: Depends b1:arm64\n b1 1", "a1", "", "a1 1 <- include list needs b1:arm64, found only b1 1 of trixie for amd64"},
		{"provide without a version", "a1 1: Depends mail (>= 2)\n b1 1: Provides mail", "a1", "", "needs mail (>= 2), found only b1 1 of trixie, which provides mail"},
		{"provide of an old version", "a1 1: Depends mail (>= 2)\n b1 1: Provides mail (= 1)", "a1", "", "found only b1 1 of trixie, which provides mail (= 1)"},
		{"each operator", "a1 1: Depends b1 (>> 2)\n b1 2", "a1", "", "needs b1 (>> 2), found only b1 2"},
		{"ambiguous", "a1 1: Depends mail\n b1 1: Provides mail\n c1 1: Provides mail", "a1", "", "needs mail, which b1, c1 provide: include one of them"},
		{"conflict", "a1 1: Depends b1\n b1 1: Conflicts c1\n c1 1", "a1 c1", "", "b1 1 <- a1 <- include list conflicts with c1, which is chosen as well: c1 1 <- include list"},
		{"conflict with a provider", "a1 1: Conflicts mail\n b1 1: Provides mail", "a1 b1", "", "a1 1 <- include list conflicts with mail, which is chosen as well: b1 1"},
		{"breaks", "a1 1: Breaks b1 (<< 2)\n b1 1", "a1 b1", "", "a1 1 <- include list breaks b1 (<< 2)"},
		{"bad relation", "a1 1: Depends b1 (> 1)", "a1", "", `package a1: Depends: parse relation "b1 (> 1)"`},
		{"bad provides", "a1 1: Provides b1 | c1", "a1", "", "package a1: Provides: expected names"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := resolve.Closure(index(t, "trixie", tc.index), "amd64", strings.Fields(tc.include), strings.Fields(tc.exclude))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}
