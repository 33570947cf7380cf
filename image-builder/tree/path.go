package tree

import (
	"fmt"
	"path"
	"strings"
)

// Lookup returns the entry at name. Links among the parents are followed, a link at the end is not.
func (t *Tree) Lookup(name string) (Entry, bool) { return t.lookup(name, false) }

// Resolve returns the entry that name leads to when all links are followed, as open(2) would.
func (t *Tree) Resolve(name string) (Entry, bool) { return t.lookup(name, true) }

func (t *Tree) lookup(name string, follow bool) (Entry, bool) {
	_, n, err := t.walk(name, follow, nil)
	if err != nil || n == nil {
		return Entry{}, false
	}
	return n.Entry, true
}

// makeParents returns the path of name without links in it, after making its parents.
func (t *Tree) makeParents(name, pkg string) (string, error) {
	p, _, err := t.walk(name, false, func(p string) error {
		t.entries[p] = &node{Entry: Entry{Path: p, Type: Dir, Mode: 0o755, Package: pkg}, implied: true}
		return nil
	})
	return p, err
}

const maxLinks = 40 // as the kernel, path_resolution(7)

// walk goes from the root to name and returns the path it ends at and what is there, nil if nothing. A missing
// parent is handed to missing, or if that is nil ends the walk with n == nil.
func (t *Tree) walk(name string, follow bool, missing func(p string) error) (p string, n *node, err error) {
	rest, err := clean(name)
	if err != nil {
		return "", nil, err
	}
	links := 0
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if part == ".." {
			p = parent(p)
			n = t.entries[p]
			continue
		}
		if part == "." || part == "" {
			continue
		}
		dir := p
		p = path.Join(p, part)
		n = t.entries[p]
		switch {
		case n == nil && rest == "":
			return p, nil, nil
		case n == nil && missing == nil:
			return p, nil, nil
		case n == nil:
			if err := missing(p); err != nil {
				return "", nil, err
			}
		case n.Type == Symlink && (rest != "" || follow):
			if links++; links > maxLinks {
				return "", nil, fmt.Errorf("more than %d links lead on from %q", maxLinks, p)
			}
			target := n.Target
			p, n = dir, t.entries[dir]
			if strings.HasPrefix(target, "/") {
				p, n = "", nil
			}
			rest = strings.Trim(target+"/"+rest, "/")
		case n.Type != Dir && rest != "":
			return "", nil, fmt.Errorf("%q is a %s from %s, not a directory", p, n.Type, source(n.Package))
		}
	}
	if p == "" {
		return "", &node{Entry: Entry{Type: Dir, Mode: 0o755}}, nil
	}
	return p, n, nil
}

func parent(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return ""
}

// clean returns name relative to the root, without "." and double slashes; the root is "".
func clean(name string) (string, error) {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("path %q has \"..\" in it", name)
		}
	}
	if !plain(name) {
		return "", fmt.Errorf("path %q has control characters", name)
	}
	return strings.TrimPrefix(path.Join("/", name), "/"), nil
}

// plain reports whether a name can be written on one line.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// Match returns the entries whose paths match pattern, which is explained at Remove.
func (t *Tree) Match(pattern string) ([]Entry, error) {
	parts := strings.Split(pattern, "/")
	for _, p := range parts {
		if _, err := path.Match(p, ""); err != nil || p == "" || p == "." || p == ".." {
			return nil, fmt.Errorf("pattern %q: expected a relative path such as usr/share/*/doc", pattern)
		}
	}
	var hits []Entry
	for e := range t.All() {
		if matches(parts, strings.Split(e.Path, "/")) {
			hits = append(hits, e)
		}
	}
	return hits, nil
}

func matches(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for i := range len(name) + 1 {
				if matches(pattern[1:], name[i:]) {
					// "a/**" is what a holds, not a itself.
					return len(pattern) > 1 || i > 0
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, _ := path.Match(pattern[0], name[0]); !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}
