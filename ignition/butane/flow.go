package butane

import (
	"fmt"
	"strconv"
	"strings"
)

// flow reads values in quotes and brackets, over lines that are indented further than parent.
type flow struct {
	r      *reader
	at     int // column of the line r.n
	parent int
	depth  int
}

func (f *flow) rest() string { return f.r.lines[f.r.n][f.at:] }

// space goes to the next character that is neither space, comment nor line break; false at the end of the block.
func (f *flow) space() bool {
	for {
		text := f.rest()
		trimmed := strings.TrimLeft(text, " \t")
		f.at += len(text) - len(trimmed)
		if trimmed != "" && trimmed[0] != '#' {
			return true
		}
		if !f.nextLine() {
			return false
		}
	}
}

func (f *flow) nextLine() bool {
	if f.r.n+1 >= len(f.r.lines) {
		return false
	}
	f.r.n++
	f.at = 0
	line := f.r.lines[f.r.n]
	text := strings.TrimSpace(line)
	return text == "" || indent(line) > f.parent || f.depth > 0 && indent(line) == f.parent && strings.IndexByte("]}", text[0]) >= 0
}

func (f *flow) wrong(problem string) *Error { return f.r.wrong(f.at, "invalid YAML: "+problem, "") }

func (f *flow) value() (*node, error) {
	if f.depth++; f.depth > maxNesting {
		return nil, f.wrong("too deep")
	}
	defer func() { f.depth-- }()
	n := &node{line: f.r.n + 1, column: f.at + 1}
	var err error
	switch c := f.rest()[0]; c {
	case '"':
		n.quoted = true
		n.text, err = f.double()
	case '\'':
		n.quoted = true
		n.text, err = f.single()
	case '[':
		n.kind = sequence
		err = f.elements(']', func() error {
			item, err := f.value()
			n.items = append(n.items, item)
			return err
		})
	case '{':
		n.kind = mapping
		err = f.elements('}', func() error { return f.pair(n) })
	case '&', '*', '!', '%', '@', '`', '|', '>':
		return nil, f.r.wrong(f.at, "not supported: YAML's anchors, aliases, tags and directives", "write the value itself, or quote it")
	default:
		n.text = f.plain()
		if n.text == "" {
			return nil, f.wrong("expected a value")
		}
	}
	return n, err
}

// elements reads what stands between brackets, with commas.
func (f *flow) elements(end byte, element func() error) error {
	f.at++
	for {
		if !f.space() {
			return f.wrong("expected " + string(end) + ", found the end")
		}
		if f.rest()[0] == end {
			f.at++
			return nil
		}
		if err := element(); err != nil {
			return err
		}
		if !f.space() {
			return f.wrong("expected " + string(end) + ", found the end")
		}
		switch f.rest()[0] {
		case ',':
			f.at++
		case end:
		default:
			return f.wrong("expected a comma or " + string(end))
		}
	}
}

func (f *flow) pair(m *node) error {
	key, err := f.value()
	if err != nil {
		return err
	}
	if key.kind != scalar || m.get(key.text) != nil {
		return &Error{Line: key.line, Column: key.column, Problem: "key given twice, or no key", Expected: "each key once", Found: fmt.Sprintf("%.80q", key.text)}
	}
	key.quoted = true
	if !f.space() {
		return f.wrong("expected }, found the end")
	}
	value := &node{line: f.r.n + 1, column: f.at + 1}
	if f.rest()[0] == ':' {
		f.at++
		if !f.space() {
			return f.wrong("expected a value, found the end")
		}
		if c := f.rest()[0]; c != ',' && c != '}' {
			if value, err = f.value(); err != nil {
				return err
			}
		}
	}
	m.pairs = append(m.pairs, pair{key, value})
	return nil
}

// plain reads to a comma, bracket, ": " or comment on this line.
func (f *flow) plain() string {
	text := f.rest()
	end := 0
	for ; end < len(text); end++ {
		c := text[end]
		if strings.IndexByte(",[]{}", c) >= 0 || c == '#' && end > 0 && text[end-1] == ' ' {
			break
		}
		if c == ':' && (end+1 == len(text) || strings.IndexByte(" ,[]{}", text[end+1]) >= 0) {
			break
		}
	}
	f.at += end
	return strings.TrimSpace(text[:end])
}

// newline folds a line break inside quotes: one is a space, more are one less.
func (f *flow) newline(b *strings.Builder) error {
	breaks := 0
	for {
		if !f.nextLine() {
			return f.wrong("expected the closing quote, found the end")
		}
		text := f.rest()
		trimmed := strings.TrimLeft(text, " \t")
		f.at += len(text) - len(trimmed)
		if trimmed != "" {
			break
		}
		breaks++
	}
	if breaks == 0 {
		b.WriteByte(' ')
	}
	b.WriteString(strings.Repeat("\n", breaks))
	return nil
}

// single reads '...', in which a quote is written twice.
func (f *flow) single() (string, error) {
	var b strings.Builder
	f.at++
	for {
		text := f.rest()
		end := strings.IndexByte(text, '\'')
		if end < 0 {
			b.WriteString(strings.TrimRight(text, " \t"))
			if err := f.newline(&b); err != nil {
				return "", err
			}
			continue
		}
		b.WriteString(text[:end])
		f.at += end + 1
		if !strings.HasPrefix(f.rest(), "'") {
			return b.String(), nil
		}
		b.WriteByte('\'')
		f.at++
	}
}

// double reads "..." with its escapes (YAML 1.2.2, 5.7).
func (f *flow) double() (string, error) {
	var b strings.Builder
	f.at++
	for {
		text := f.rest()
		end := strings.IndexAny(text, `"\`)
		if end < 0 {
			b.WriteString(strings.TrimRight(text, " \t"))
			if err := f.newline(&b); err != nil {
				return "", err
			}
			continue
		}
		b.WriteString(text[:end])
		f.at += end + 1
		if text[end] == '"' {
			return b.String(), nil
		}
		if err := f.escape(&b); err != nil {
			return "", err
		}
	}
}

// escape reads what stands behind a backslash.
func (f *flow) escape(b *strings.Builder) error {
	text := f.rest()
	if text == "" { // the line break is not part of the text
		var dropped strings.Builder
		if err := f.newline(&dropped); err != nil {
			return err
		}
		b.WriteString(strings.TrimPrefix(dropped.String(), " "))
		return nil
	}
	f.at++
	if digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[text[0]]; digits > 0 {
		if len(text) <= digits {
			return f.wrong("an escape that is cut off")
		}
		v, err := strconv.ParseUint(text[1:1+digits], 16, 32)
		if err != nil {
			return f.wrong("an escape without hexadecimal digits")
		}
		f.at += digits
		b.WriteRune(rune(v))
		return nil
	}
	const from, to = "0abtnvfre\"/\\ \t", "\x00\a\b\t\n\v\f\r\x1b\"/\\ \t"
	i := strings.IndexByte(from, text[0])
	if i < 0 {
		f.at--
		return f.wrong("an unknown escape")
	}
	b.WriteByte(to[i])
	return nil
}
