package deb

import (
	"fmt"
	"strconv"
	"strings"
)

// Version is [epoch:]upstream[-revision] (Debian Policy 5.6.12).
type Version struct {
	Epoch    int
	Upstream string
	Revision string // "" if there is none; compares equal to "0"
}

// ParseVersion accepts what dpkg accepts without an error: an upstream part that does not start with a digit is allowed.
func ParseVersion(s string) (Version, error) {
	var v Version
	rest := s
	if epoch, after, ok := strings.Cut(s, ":"); ok {
		if !isDigits(epoch) {
			return Version{}, fmt.Errorf("parse version %q: epoch %q is not a number", s, epoch)
		}
		n, err := strconv.ParseInt(epoch, 10, 32)
		if err != nil {
			return Version{}, fmt.Errorf("parse version %q: epoch %s is too large", s, epoch)
		}
		v.Epoch, rest = int(n), after
	}
	v.Upstream = rest
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		v.Upstream, v.Revision = rest[:i], rest[i+1:]
		if v.Revision == "" {
			return Version{}, fmt.Errorf("parse version %q: nothing behind the last \"-\"", s)
		}
	}
	if v.Upstream == "" {
		return Version{}, fmt.Errorf("parse version %q: no upstream version", s)
	}
	if i := badVersionByte(v.Upstream, ".+-~:"); i >= 0 {
		return Version{}, fmt.Errorf("parse version %q: %q is not allowed in the upstream version", s, v.Upstream[i])
	}
	if i := badVersionByte(v.Revision, ".+~"); i >= 0 {
		return Version{}, fmt.Errorf("parse version %q: %q is not allowed in the revision", s, v.Revision[i])
	}
	return v, nil
}

// Compare returns -1, 0 or +1 as v is older than, equal to or newer than w, by the rules of deb-version(7).
func (v Version) Compare(w Version) int {
	if v.Epoch != w.Epoch {
		return sign(v.Epoch - w.Epoch)
	}
	if c := comparePart(v.Upstream, w.Upstream); c != 0 {
		return c
	}
	return comparePart(v.Revision, w.Revision)
}

// String is the form ParseVersion reads; an epoch of 0 is left out.
func (v Version) String() string {
	s := v.Upstream
	if v.Epoch != 0 || strings.Contains(s, ":") {
		s = strconv.Itoa(v.Epoch) + ":" + s
	}
	if v.Revision != "" {
		s += "-" + v.Revision
	}
	return s
}

// comparePart walks over both strings, alternating between a run of non-digits, compared by order, and a
// run of digits, compared as a number of any length.
func comparePart(a, b string) int {
	for a != "" || b != "" {
		for (a != "" && !isDigit(a[0])) || (b != "" && !isDigit(b[0])) {
			if c := order(a) - order(b); c != 0 {
				return sign(c)
			}
			a, b = tail(a), tail(b)
		}
		a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		diff := 0
		for a != "" && b != "" && isDigit(a[0]) && isDigit(b[0]) {
			if diff == 0 {
				diff = int(a[0]) - int(b[0])
			}
			a, b = a[1:], b[1:]
		}
		switch {
		case a != "" && isDigit(a[0]):
			return 1
		case b != "" && isDigit(b[0]):
			return -1
		case diff != 0:
			return sign(diff)
		}
	}
	return 0
}

// order weighs the first byte of s: "~" before the end of the string and digits, then letters, then all else.
func order(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case isLetter(s[0]):
		return int(s[0])
	default:
		return int(s[0]) + 256
	}
}

func tail(s string) string {
	if s == "" {
		return s
	}
	return s[1:]
}

func badVersionByte(s, extra string) int {
	for i := range len(s) {
		if !isDigit(s[i]) && !isLetter(s[i]) && strings.IndexByte(extra, s[i]) < 0 {
			return i
		}
	}
	return -1
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isLetter(c byte) bool   { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func sign(n int) int { return min(1, max(-1, n)) }
