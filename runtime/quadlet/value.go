package quadlet

import (
	"strings"
)

// settings are the assignments of one section, with the problems that reading them turns up.
type settings struct {
	entries  []entry
	problems []Problem
}

func (s *settings) add(p ...Problem) { s.problems = append(s.problems, p...) }

// last is the assignment that holds, if it has a value.
func (s *settings) last(key string) (entry, bool) {
	for i := len(s.entries) - 1; i >= 0; i-- {
		if e := s.entries[i]; e.key == key {
			e.value = unquote(e.value)
			return e, e.value != ""
		}
	}
	return entry{}, false
}

// text is the value that holds, or "".
func (s *settings) text(key string) string {
	e, _ := s.last(key)
	return e.value
}

// unquote takes off a pair of double quotes around a whole value, as podman does.
func unquote(v string) string {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		return v[1 : len(v)-1]
	}
	return v
}

// each are the assignments since the last empty one.
func (s *settings) each(key string) []entry {
	var out []entry
	for _, e := range s.entries {
		switch {
		case e.key != key:
		case e.value == "":
			out = nil
		default:
			out = append(out, e)
		}
	}
	return out
}

// words are the words of all assignments; an escape in them is read if escapes is true.
func (s *settings) words(key string, escapes bool) []entry {
	var out []entry
	for _, e := range s.each(key) {
		words, err := split(e.value, escapes)
		if err != nil {
			s.add(e.problem("%v", err))
		}
		for _, w := range words {
			word := e
			word.value = w
			out = append(out, word)
		}
	}
	return out
}

// pairs are the NAME=VALUE words of all assignments, the last one for each name, in the order of the first.
func (s *settings) pairs(key string) []entry {
	var out []entry
	at := make(map[string]int)
	for _, e := range s.words(key, true) {
		name, _, _ := strings.Cut(e.value, "=")
		if name == "" {
			s.add(e.problem("%.60q has no name: expected NAME=VALUE", e.value))
			continue
		}
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}

// boolean is systemd's; set says whether there is a value at all.
func (s *settings) boolean(key string) (value, set bool) {
	e, ok := s.last(key)
	if !ok {
		return false, false
	}
	switch strings.ToLower(e.value) {
	case "1", "yes", "y", "true", "t", "on":
		return true, true
	case "0", "no", "n", "false", "f", "off":
		return false, true
	}
	s.add(e.problem("%.60q is no boolean: expected yes or no", e.value))
	return false, false
}

// isSpecifier reports whether a path begins with one of systemd's specifiers, which only systemd can make absolute.
func isSpecifier(path string) bool {
	return len(path) > 1 && path[0] == '%' && path[1] != '%'
}
