package deb_test

import (
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/deb"
)

func TestParseRelations(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"", ""},
		{"  \n ", ""},
		{"libc6", "libc6"},
		{"libc6 (>= 2.41), libz1(<<1:2-3)", "libc6 (>= 2.41), libz1 (<< 1:2-3)"},
		{"a1 | b2 (= 1) [amd64 !i386], python3:any", "a1 | b2 (= 1) [amd64 !i386], python3:any"},
		{"a1 <!nocheck> <cross>, b2,", "a1, b2"},
		{"libgcc-s1 (>> 4.2),\n libstdc++6 (<= 5)", "libgcc-s1 (>> 4.2), libstdc++6 (<= 5)"},
		{"default-logind | logind", "default-logind | logind"},
	} {
		groups, err := deb.ParseRelations(tc.in)
		if err != nil {
			t.Errorf("%q: %v", tc.in, err)
			continue
		}
		if got := format(groups); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.in, got, tc.want)
		}
	}
}

func format(groups [][]deb.Relation) string {
	var out []string
	for _, g := range groups {
		var alts []string
		for _, r := range g {
			alts = append(alts, r.String())
		}
		out = append(out, strings.Join(alts, " | "))
	}
	return strings.Join(out, ", ")
}

func TestParseRelationsErrors(t *testing.T) {
	for in, want := range map[string]string{
		"a1,,b2":        "nothing between two commas",
		"a1 |":          `package name ""`,
		"a1 (1.0)":      `operator "" is not one of`,
		"a1 (> 1)":      `operator ">" is not one of`,
		"a1 (=> 1)":     `operator "=>" is not one of`,
		"a1 (>= )":      "no upstream version",
		"a1 (>= 1":      "'(' is not closed",
		"a1 [amd64":     "'[' is not closed",
		"a1 []":         "no architecture",
		"a1 [x/y]":      `architecture "x/y"`,
		"A1":            "'A' is not allowed at offset 0",
		"-a":            "'-' is not allowed at offset 0",
		"a":             "fewer than 2 characters",
		"a1 b2":         `"b2" is left over`,
		"a1:":           `qualifier ""`,
		"a1 (= 1) tail": `"tail" is left over`,
	} {
		if _, err := deb.ParseRelations(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", in, err, want)
		}
	}
}

func TestRelationAllows(t *testing.T) {
	for _, tc := range []struct {
		rel  string
		want string // which of 1, 2 and 3 are allowed
	}{
		{"a1", "123"}, {"a1 (<< 2)", "1"}, {"a1 (<= 2)", "12"}, {"a1 (= 2)", "2"}, {"a1 (>= 2)", "23"}, {"a1 (>> 2)", "3"},
	} {
		groups, err := deb.ParseRelations(tc.rel)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, v := range []string{"1", "2", "3"} {
			if groups[0][0].Allows(parse(t, v)) {
				got += v
			}
		}
		if got != tc.want {
			t.Errorf("%s allows %s, want %s", tc.rel, got, tc.want)
		}
	}
}

func TestRelationAppliesTo(t *testing.T) {
	for rel, want := range map[string]bool{
		"a1": true, "a1 [amd64]": true, "a1 [arm64]": false, "a1 [!amd64]": false, "a1 [!arm64 !i386]": true,
		"a1 [any]": true, "a1 [linux-any]": true, "a1 [any-amd64]": true, "a1 [hurd-any]": false, "a1 [arm64 amd64]": true,
	} {
		groups, err := deb.ParseRelations(rel)
		if err != nil {
			t.Fatal(err)
		}
		if got := groups[0][0].AppliesTo("amd64"); got != want {
			t.Errorf("%s on amd64: got %v, want %v", rel, got, want)
		}
	}
}

func FuzzRelations(f *testing.F) {
	f.Add("libc6 (>= 2.41), a1 | b2:any [amd64] <!x>")
	f.Add("a1 (<< 1:2~rc-3) [!amd64 linux-any],")
	f.Fuzz(func(t *testing.T, s string) {
		groups, err := deb.ParseRelations(s)
		if err != nil {
			return
		}
		text := format(groups)
		again, err := deb.ParseRelations(text)
		if err != nil || format(again) != text {
			t.Fatalf("%q prints as %q, which reads as %q, %v", s, text, format(again), err)
		}
	})
}
