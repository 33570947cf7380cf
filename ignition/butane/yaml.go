package butane

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxNesting keeps hostile documents from using up the stack.
const maxNesting = 64

// reader reads block by block: a block is the lines that are indented at least as far as its first one.
type reader struct {
	lines []string
	n     int // the line that is read
	depth int
}

// Error is something wrong with a document.
type Error struct {
	Line, Column              int // from 1; columns in bytes
	Path                      string
	Problem                   string
	Expected, Found, NextStep string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Problem)
}

func (r *reader) wrong(column int, problem, next string) *Error {
	return &Error{Line: r.n + 1, Column: column + 1, Problem: problem, NextStep: next}
}

// parse reads one YAML document.
func parse(raw []byte) (*node, error) {
	if !utf8.Valid(raw) {
		return nil, &Error{Line: 1, Column: 1, Problem: "invalid YAML: not UTF-8"}
	}
	text := strings.TrimPrefix(string(raw), "\ufeff")
	r := &reader{lines: strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")}
	if !r.skip() {
		return nil, r.wrong(0, "empty document", "")
	}
	if strings.HasPrefix(r.lines[r.n], "---") && strings.TrimSpace(r.lines[r.n][3:]) == "" {
		r.n++
		if !r.skip() {
			return nil, r.wrong(0, "empty document", "")
		}
	}
	n, err := r.block(-1)
	if err != nil {
		return nil, err
	}
	if r.skip() && strings.TrimSpace(r.lines[r.n]) != "..." {
		return nil, r.wrong(indent(r.lines[r.n]), "invalid YAML: the indentation fits nothing before, or a second document begins", "indent it as far as its neighbours; one document is a config")
	}
	n.name("")
	return n, nil
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

func isBlank(text string) bool {
	text = strings.TrimLeft(text, " \t")
	return text == "" || text[0] == '#'
}

// skip goes to the next line that holds something.
func (r *reader) skip() bool {
	for r.n < len(r.lines) && isBlank(r.lines[r.n]) {
		r.n++
	}
	return r.n < len(r.lines)
}

// block reads the value that begins on this line, which is indented further than parent.
func (r *reader) block(parent int) (*node, error) {
	if r.depth++; r.depth > maxNesting {
		return nil, r.wrong(0, "too deep", "")
	}
	defer func() { r.depth-- }()
	line := r.lines[r.n]
	at := indent(line)
	text := line[at:]
	switch {
	case text[0] == '\t':
		return nil, r.wrong(at, "invalid YAML: a tab in the indentation", "indent with spaces")
	case text == "-" || strings.HasPrefix(text, "- "):
		return r.sequence(at)
	}
	if _, _, ok := splitKey(text); ok {
		return r.mapping(at)
	}
	return r.value(at, parent)
}

// sequence reads "- item" lines at a column. The dash becomes a space, so that an item is a block of its own.
func (r *reader) sequence(at int) (*node, error) {
	s := &node{kind: sequence, line: r.n + 1, column: at + 1}
	for r.skip() {
		line := r.lines[r.n]
		if indent(line) != at || line[at:] != "-" && !strings.HasPrefix(line[at:], "- ") {
			break
		}
		item := &node{line: r.n + 1, column: at + 1}
		var err error
		if rest := line[at+1:]; isBlank(rest) {
			r.n++
			if r.skip() && indent(r.lines[r.n]) > at {
				item, err = r.block(at)
			}
		} else {
			r.lines[r.n] = line[:at] + " " + rest
			item, err = r.block(at)
		}
		if err != nil {
			return nil, err
		}
		s.items = append(s.items, item)
	}
	return s, nil
}

// mapping reads "key: value" lines at a column.
func (r *reader) mapping(at int) (*node, error) {
	m := &node{kind: mapping, line: r.n + 1, column: at + 1}
	for r.skip() {
		line := r.lines[r.n]
		if indent(line) < at {
			break
		}
		if indent(line) > at {
			return nil, r.wrong(indent(line), "invalid YAML: indented further than its neighbours", "align it with them")
		}
		if line[at] == '\t' {
			return nil, r.wrong(at, "invalid YAML: a tab in the indentation", "indent with spaces")
		}
		key, after, ok := splitKey(line[at:])
		if !ok {
			return nil, r.wrong(at, "invalid YAML: expected \"key: value\"", "")
		}
		if m.get(key) != nil {
			return nil, &Error{Line: r.n + 1, Column: at + 1, Problem: "key given twice", Expected: "each key once", Found: fmt.Sprintf("%.80q", key), NextStep: "keep one of them"}
		}
		k := &node{text: key, quoted: true, line: r.n + 1, column: at + 1}
		v, err := r.behind(at, at+after)
		if err != nil {
			return nil, err
		}
		m.pairs = append(m.pairs, pair{k, v})
	}
	return m, nil
}

// behind reads the value behind a key at column at: on the same line from column from, or in the lines below.
func (r *reader) behind(at, from int) (*node, error) {
	line := r.lines[r.n]
	if !isBlank(line[from:]) {
		return r.value(from+len(line[from:])-len(strings.TrimLeft(line[from:], " ")), at)
	}
	null := &node{line: r.n + 1, column: from + 1}
	r.n++
	if !r.skip() {
		return null, nil
	}
	below := r.lines[r.n]
	switch {
	case indent(below) > at:
		return r.block(at)
	case indent(below) == at && (below[at:] == "-" || strings.HasPrefix(below[at:], "- ")):
		return r.sequence(at)
	}
	return null, nil
}

// splitKey returns a line's key and the offset behind its colon.
func splitKey(text string) (key string, after int, ok bool) {
	if text == "" || strings.IndexByte("[{#&*!|>%@`", text[0]) >= 0 {
		return "", 0, false
	}
	end := 0
	if text[0] == '"' || text[0] == '\'' {
		end = strings.IndexByte(text[1:], text[0]) + 2
		if end < 3 || strings.Contains(text[:end], `\`) {
			return "", 0, false
		}
		key = text[1 : end-1]
	}
	colon := strings.Index(text[end:]+" ", ": ")
	if colon < 0 {
		return "", 0, false
	}
	if end == 0 {
		key = strings.TrimRight(text[:colon], " ")
		if comment := strings.Index(key, " #"); comment >= 0 {
			return "", 0, false
		}
	} else if strings.TrimSpace(text[end:end+colon]) != "" {
		return "", 0, false
	}
	return key, end + colon + 1, key != ""
}

// value reads a scalar, or a value in brackets, from a column of this line; lines that belong to it are indented further than parent.
func (r *reader) value(at, parent int) (*node, error) {
	text := r.lines[r.n][at:]
	switch text[0] {
	case '|', '>':
		return r.literal(at, parent)
	case '"', '\'', '[', '{':
		f := &flow{r: r, at: at, parent: parent}
		n, err := f.value()
		if err != nil {
			return nil, err
		}
		if !isBlank(r.lines[r.n][f.at:]) {
			return nil, r.wrong(f.at, "invalid YAML: more text behind a value", "quote the whole value")
		}
		r.n++
		return n, nil
	case '&', '*', '!', '%', '@', '`':
		return nil, r.wrong(at, "not supported: YAML's anchors, aliases, tags and directives", "write the value itself, or quote it")
	case '?':
		if len(text) == 1 || text[1] == ' ' {
			return nil, r.wrong(at, "not supported: YAML's complex keys", "")
		}
	}
	return r.plain(at, parent)
}

// plain reads a scalar without quotes; lines below it are joined by spaces.
func (r *reader) plain(at, parent int) (*node, error) {
	n := &node{line: r.n + 1, column: at + 1}
	text := strings.TrimSpace(uncommented(r.lines[r.n][at:]))
	if strings.Contains(text+" ", ": ") {
		return nil, r.wrong(at, "invalid YAML: a value without quotes that contains \": \"", "quote the value")
	}
	r.n++
	for breaks := 0; r.n < len(r.lines); r.n++ {
		line := r.lines[r.n]
		if strings.TrimSpace(line) == "" {
			breaks++
			continue
		}
		if indent(line) <= parent || isBlank(line) {
			break
		}
		more := strings.TrimSpace(uncommented(line))
		if strings.Contains(more+" ", ": ") {
			return nil, r.wrong(indent(line), "invalid YAML: expected the rest of the value before, found a key", "check the indentation, or quote the value")
		}
		if breaks > 0 {
			text += strings.Repeat("\n", breaks) + more
		} else {
			text += " " + more
		}
		breaks = 0
	}
	n.text = text
	return n, nil
}

// uncommented cuts a comment off a plain value.
func uncommented(text string) string {
	for i := 1; i < len(text); i++ {
		if text[i] == '#' && (text[i-1] == ' ' || text[i-1] == '\t') {
			return text[:i]
		}
	}
	return text
}

// literal reads a block scalar: "|" keeps line breaks, ">" folds them; "-" drops the last one, "+" keeps all.
func (r *reader) literal(at, parent int) (*node, error) {
	n := &node{quoted: true, line: r.n + 1, column: at + 1}
	header := strings.TrimSpace(uncommented(r.lines[r.n][at:] + " "))
	folded, chomp, width := header[0] == '>', byte(0), 0
	for _, c := range []byte(header[1:]) {
		switch {
		case (c == '-' || c == '+') && chomp == 0:
			chomp = c
		case c >= '1' && c <= '9' && width == 0:
			width = max(parent, 0) + int(c-'0')
		default:
			return nil, r.wrong(at, "invalid YAML: expected |, |-, |+, >, >- or >+, found something behind it", "begin the text on the next line")
		}
	}
	r.n++
	var lines []string
	for ; r.n < len(r.lines); r.n++ {
		line := r.lines[r.n]
		if strings.Trim(line, " ") == "" && (width == 0 || len(line) <= width) {
			lines = append(lines, "")
			continue
		}
		if width == 0 {
			width = indent(line)
		}
		if indent(line) <= parent || indent(line) < width {
			break
		}
		lines = append(lines, line[width:])
	}
	end := len(lines)
	for end > 0 && lines[end-1] == "" {
		end--
	}
	text := strings.Join(lines[:end], "\n")
	if folded {
		text = fold(lines[:end])
	}
	switch {
	case chomp == '+':
		text += strings.Repeat("\n", len(lines)-end+min(end, 1))
		if r.n == len(r.lines) && len(lines) > end { // the empty string behind the document's last line break
			text = text[:len(text)-1]
		}
	case chomp == 0 && text != "" && (r.n < len(r.lines) || end < len(lines)): // a document may end without a line break
		text += "\n"
	}
	n.text = text
	return n, nil
}

// fold joins lines by spaces; empty lines are line breaks, and lines that are indented keep theirs.
func fold(lines []string) string {
	var b strings.Builder
	for i := 0; i < len(lines); i++ {
		if i == 0 {
			b.WriteString(lines[0])
			continue
		}
		breaks := 0
		for lines[i] == "" && i < len(lines)-1 {
			breaks++
			i++
		}
		before := lines[i-1-breaks]
		kept := strings.HasPrefix(lines[i], " ") || strings.HasPrefix(before, " ") || strings.HasPrefix(lines[i], "\t") || strings.HasPrefix(before, "\t")
		switch {
		case kept:
			b.WriteString(strings.Repeat("\n", breaks+1))
		case breaks > 0:
			b.WriteString(strings.Repeat("\n", breaks))
		default:
			b.WriteByte(' ')
		}
		b.WriteString(lines[i])
	}
	return b.String()
}
