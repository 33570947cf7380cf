package deb

import (
	"fmt"
	"slices"
	"strings"
)

// Relation is one alternative of a relation field: `name:qualifier (op version) [arches] <profiles>`
// (Debian Policy 7.1).
type Relation struct {
	Name      string
	Qualifier string   // "any", "native" or an architecture, from name:qualifier; else ""
	Op        string   // "<<", "<=", "=", ">=", ">>" or "" for any version
	Version   Version  // set when Op is
	Arches    []string // as written: "amd64", "!i386", "linux-any"; empty means all
	Profiles  string   // build profiles as written; they never apply to a binary package
}

// ParseRelations reads a field such as Depends: groups separated by ",", of which each is satisfied by any one of its
// alternatives, separated by "|". An empty field gives no groups.
func ParseRelations(field string) ([][]Relation, error) {
	if strings.TrimSpace(field) == "" {
		return nil, nil
	}
	var groups [][]Relation
	parts := strings.Split(field, ",")
	for i, part := range parts {
		if strings.TrimSpace(part) == "" {
			if i == len(parts)-1 { // dpkg allows a trailing comma
				break
			}
			return nil, fmt.Errorf("parse relations %.200q: nothing between two commas", field)
		}
		var group []Relation
		for alt := range strings.SplitSeq(part, "|") {
			r, err := parseRelation(strings.TrimSpace(alt))
			if err != nil {
				return nil, fmt.Errorf("parse relation %.200q: %w", strings.TrimSpace(alt), err)
			}
			group = append(group, r)
		}
		groups = append(groups, group)
	}
	return groups, nil
}

func parseRelation(s string) (Relation, error) {
	var r Relation
	end := strings.IndexAny(s, " \t\n([<")
	if end < 0 {
		end = len(s)
	}
	r.Name = s[:end]
	rest := strings.TrimSpace(s[end:])
	if name, qual, ok := strings.Cut(r.Name, ":"); ok {
		if !validArch(qual) {
			return Relation{}, fmt.Errorf("qualifier %q is not an architecture, any or native", qual)
		}
		r.Name, r.Qualifier = name, qual
	}
	if err := CheckName(r.Name); err != nil {
		return Relation{}, err
	}
	if inner, after, ok, err := bracket(rest, '(', ')'); err != nil {
		return Relation{}, err
	} else if ok {
		rest = after
		if r.Op, r.Version, err = parseConstraint(inner); err != nil {
			return Relation{}, err
		}
	}
	if inner, after, ok, err := bracket(rest, '[', ']'); err != nil {
		return Relation{}, err
	} else if ok {
		rest, r.Arches = after, strings.Fields(inner)
		if len(r.Arches) == 0 {
			return Relation{}, fmt.Errorf("no architecture between [ and ]")
		}
		for _, a := range r.Arches {
			if !validArch(strings.TrimPrefix(a, "!")) {
				return Relation{}, fmt.Errorf("architecture %q is not allowed", a)
			}
		}
	}
	if strings.HasPrefix(rest, "<") && strings.HasSuffix(rest, ">") {
		r.Profiles, rest = rest, ""
	}
	if rest != "" {
		return Relation{}, fmt.Errorf("%q is left over", rest)
	}
	return r, nil
}

// bracket cuts "(inner) after" in two; ok is false if s does not start with open.
func bracket(s string, open, shut byte) (inner, after string, ok bool, err error) {
	if s == "" || s[0] != open {
		return "", s, false, nil
	}
	i := strings.IndexByte(s, shut)
	if i < 0 {
		return "", "", false, fmt.Errorf("%q is not closed", open)
	}
	return strings.TrimSpace(s[1:i]), strings.TrimSpace(s[i+1:]), true, nil
}

func parseConstraint(s string) (string, Version, error) {
	n := len(s) - len(strings.TrimLeft(s, "<>="))
	op := s[:n]
	if !slices.Contains([]string{"<<", "<=", "=", ">=", ">>"}, op) {
		return "", Version{}, fmt.Errorf("operator %q is not one of << <= = >= >>", op)
	}
	v, err := ParseVersion(strings.TrimSpace(s[n:]))
	if err != nil {
		return "", Version{}, err
	}
	return op, v, nil
}

// String is the normal form of the relation, without profiles.
func (r Relation) String() string {
	s := r.Name
	if r.Qualifier != "" {
		s += ":" + r.Qualifier
	}
	if r.Op != "" {
		s += " (" + r.Op + " " + r.Version.String() + ")"
	}
	if len(r.Arches) > 0 {
		s += " [" + strings.Join(r.Arches, " ") + "]"
	}
	return s
}

// Allows reports whether a package of version v fulfils the version part.
func (r Relation) Allows(v Version) bool {
	if r.Op == "" {
		return true
	}
	c := v.Compare(r.Version)
	switch r.Op {
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	default: // ">>"
		return c > 0
	}
}

// AppliesTo reports whether the relation counts on a Linux architecture such as amd64. Wildcards are
// any, linux-any and any-ARCH (Debian Policy 11.1.1).
func (r Relation) AppliesTo(arch string) bool {
	if len(r.Arches) == 0 {
		return true
	}
	negative := strings.HasPrefix(r.Arches[0], "!")
	for _, a := range r.Arches {
		a = strings.TrimPrefix(a, "!")
		if a == arch || a == "any" || a == "linux-any" || a == "linux-"+arch || a == "any-"+arch {
			return !negative
		}
	}
	return negative
}

// CheckName checks a package name: at least two characters, lower-case letters, digits and "+-.", starting with
// a letter or digit (Debian Policy 5.6.1).
func CheckName(s string) error {
	if len(s) < 2 {
		return fmt.Errorf("package name %q has fewer than 2 characters", s)
	}
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || isDigit(c) || i > 0 && strings.IndexByte("+-.", c) >= 0 {
			continue
		}
		return fmt.Errorf("package name %.80q: %q is not allowed at offset %d", s, c, i)
	}
	return nil
}

func validArch(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
