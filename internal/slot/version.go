package slot

import (
	"cmp"
	"strings"
)

// Compare orders two semver versions as the loader does: negative if a is older than b. It is the version comparison
// of the UAPI group's "Version Format Specification" (strverscmp_improved in systemd) on the file-name form, in which
// a pre-release's first "-" is "~". It agrees with semver except that a pre-release identifier made of digits is newer
// than one of letters; release versions agree always.
func Compare(a, b string) int {
	a, b = strings.Replace(a, "-", "~", 1), strings.Replace(b, "-", "~", 1)
	for {
		a, b = strings.TrimLeftFunc(a, invalid), strings.TrimLeftFunc(b, invalid)
		if r, done := separator(&a, &b, '~'); done {
			return r
		}
		if a == "" || b == "" {
			return cmp.Compare(len(a), len(b))
		}
		for _, c := range []byte("-^.") {
			if r, done := separator(&a, &b, c); done {
				return r
			}
		}
		if r := segment(&a, &b); r != 0 {
			return r
		}
	}
}

func digit(c rune) bool { return '0' <= c && c <= '9' }
func alpha(c rune) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func invalid(c rune) bool {
	return !digit(c) && !alpha(c) && !strings.ContainsRune("~-^.", c)
}

// separator handles one separator character: the string that has it here is the older one; if both have it, it is
// dropped from both.
func separator(a, b *string, c byte) (result int, done bool) {
	hasA, hasB := strings.HasPrefix(*a, string(c)), strings.HasPrefix(*b, string(c))
	if hasA != hasB {
		return -compareBool(hasA, hasB), true
	}
	if hasA {
		*a, *b = (*a)[1:], (*b)[1:]
	}
	return 0, false
}

// segment compares and drops the leading digits or letters. Digits are newer than letters.
func segment(a, b *string) int {
	x, y := span(*a, digit), span(*b, digit)
	if x != "" || y != "" {
		if r := compareBool(x != "", y != ""); r != 0 {
			return r
		}
		*a, *b = (*a)[len(x):], (*b)[len(y):]
		x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if r := cmp.Compare(len(x), len(y)); r != 0 {
			return r
		}
		return strings.Compare(x, y)
	}
	x, y = span(*a, alpha), span(*b, alpha)
	*a, *b = (*a)[len(x):], (*b)[len(y):]
	return strings.Compare(x, y)
}

func span(s string, in func(rune) bool) string {
	return s[:len(s)-len(strings.TrimLeftFunc(s, in))]
}
