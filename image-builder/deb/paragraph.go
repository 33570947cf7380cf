package deb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLine caps one line of a control text in bytes. The longest lines of Debian's indexes are relations of some 20 KB.
const maxLine = 1 << 20

// Paragraph is a group of fields (deb822(5)). Field names are case-insensitive.
type Paragraph struct {
	Line   int // line of the first field, from 1
	fields map[string]string
}

// Get returns the value of a field without surrounding white space, or "" if it is absent. Continuation lines are
// kept with their newline and without their first character.
func (p Paragraph) Get(field string) string { return p.fields[strings.ToLower(field)] }

// Has reports whether the field is there, even if empty.
func (p Paragraph) Has(field string) bool {
	_, ok := p.fields[strings.ToLower(field)]
	return ok
}

// ParagraphReader reads paragraphs one after another from a control file, a Packages index, a Release file or
// a .sources file.
type ParagraphReader struct {
	name string
	line int
	s    *bufio.Scanner
}

// NewParagraphReader returns a reader; name is what errors call the text.
func NewParagraphReader(name string, r io.Reader) *ParagraphReader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	return &ParagraphReader{name: name, s: s}
}

// Next returns the next paragraph, or io.EOF. Errors name the text and the line.
func (r *ParagraphReader) Next() (Paragraph, error) {
	p := Paragraph{fields: make(map[string]string, 24)}
	last := ""                // lower-case name of the field that a continuation line belongs to
	var cont *strings.Builder // value of that field once it has continuation lines
	flush := func() {
		if cont != nil {
			p.fields[last] = cont.String()
			cont = nil
		}
	}
	for r.s.Scan() {
		r.line++
		line := r.s.Text()
		switch {
		case strings.TrimRight(line, " \t\r") == "":
			if p.Line != 0 {
				flush()
				return p, nil
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if last == "" {
				return Paragraph{}, r.errorf("continuation line before any field")
			}
			if cont == nil {
				cont = new(strings.Builder)
				cont.WriteString(p.fields[last])
			}
			cont.WriteByte('\n')
			cont.WriteString(strings.TrimRight(line[1:], " \t\r"))
		default:
			flush()
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return Paragraph{}, r.errorf("expected \"Field: value\", found %.80q", line)
			}
			if !validField(name) {
				return Paragraph{}, r.errorf("field name %.80q is not allowed", name)
			}
			last = strings.ToLower(name)
			if _, dup := p.fields[last]; dup {
				return Paragraph{}, r.errorf("field %s appears twice in a paragraph", name)
			}
			if p.Line == 0 {
				p.Line = r.line
			}
			p.fields[last] = strings.Trim(value, " \t\r")
		}
	}
	if err := r.s.Err(); errors.Is(err, bufio.ErrTooLong) {
		r.line++
		return Paragraph{}, r.errorf("line has more than %d bytes", maxLine)
	} else if err != nil {
		return Paragraph{}, fmt.Errorf("read %s after line %d: %w", r.name, r.line, err)
	}
	flush()
	if p.Line == 0 {
		return Paragraph{}, io.EOF
	}
	return p, nil
}

func (r *ParagraphReader) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", r.name, r.line, fmt.Sprintf(format, args...))
}

// validField follows deb822(5): printable US-ASCII without space and colon, not starting with "#" or "-".
func validField(s string) bool {
	if s == "" || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
