package butane

import (
	"fmt"
	"strconv"
)

type kind int

const (
	scalar kind = iota
	mapping
	sequence
)

// node is a value of a YAML document and where it stands.
type node struct {
	kind   kind
	text   string // of a scalar
	quoted bool   // a scalar that can only be text
	pairs  []pair
	items  []*node
	line   int
	column int    // in bytes, from 1
	path   string // in the document: storage.files[0].mode
}

type pair struct {
	key   *node
	value *node
}

func (n *node) get(key string) *node {
	for _, p := range n.pairs {
		if p.key.text == key {
			return p.value
		}
	}
	return nil
}

// take removes a key and returns its value, nil if there was none.
func (n *node) take(key string) *node {
	for i, p := range n.pairs {
		if p.key.text == key {
			n.pairs = append(n.pairs[:i:i], n.pairs[i+1:]...)
			return p.value
		}
	}
	return nil
}

// set puts a value behind a key, beside like, whose place it takes.
func (n *node) set(key string, value, like *node) {
	n.take(key)
	n.pairs = append(n.pairs, pair{textNode(key, like), value})
}

// child returns the mapping or sequence behind a key, making it if there is none.
func (n *node) child(key string, k kind, like *node) *node {
	if c := n.get(key); c != nil && c.kind == k {
		return c
	}
	c := &node{kind: k, line: like.line, column: like.column, path: like.path}
	n.set(key, c, like)
	return c
}

// textNode is a scalar in the place of another one.
func textNode(text string, like *node) *node {
	return &node{text: text, quoted: true, line: like.line, column: like.column, path: like.path}
}

// plainNode is a scalar that is not text: true, 420.
func plainNode(text string, like *node) *node {
	n := textNode(text, like)
	n.quoted = false
	return n
}

func mapNode(like *node, pairs ...pair) *node {
	return &node{kind: mapping, pairs: pairs, line: like.line, column: like.column, path: like.path}
}

// name sets the paths of a document.
func (n *node) name(path string) {
	n.path = path
	for _, p := range n.pairs {
		child := p.key.text
		if path != "" {
			child = path + "." + child
		}
		p.key.path = child
		p.value.name(child)
	}
	for i, item := range n.items {
		item.name(fmt.Sprintf("%s[%d]", path, i))
	}
}

// what says which kind of value it is, and which text, for a person. Nobody calls it of what may be a secret.
func (n *node) what() string {
	switch {
	case n.kind == mapping:
		return "a mapping"
	case n.kind == sequence:
		return "a list"
	case n.isNull():
		return "nothing"
	}
	return fmt.Sprintf("the text %.80q", n.text)
}

// isNull says whether a plain scalar is YAML's null.
func (n *node) isNull() bool {
	if n.kind != scalar || n.quoted {
		return false
	}
	switch n.text {
	case "", "~", "null", "Null", "NULL":
		return true
	}
	return false
}

// boolean returns a plain scalar's truth value.
func (n *node) boolean() (value, ok bool) {
	if n.kind != scalar || n.quoted {
		return false, false
	}
	switch n.text {
	case "true", "True", "TRUE":
		return true, true
	case "false", "False", "FALSE":
		return false, true
	}
	return false, false
}

// integer returns a plain scalar's number: decimal, hexadecimal, and octal with a leading 0 or 0o, as modes are written.
func (n *node) integer() (int64, bool) {
	if n.kind != scalar || n.quoted || n.text == "" {
		return 0, false
	}
	v, err := strconv.ParseInt(n.text, 0, 64)
	return v, err == nil
}
