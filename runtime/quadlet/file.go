package quadlet

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxSize is how many bytes a file may have; systemd takes lines of up to 1 MiB.
const MaxSize = 1 << 20

// A Problem is what is wrong with a declaration.
type Problem struct {
	Path string
	Line int // 0: the file as a whole
	Text string
}

func (p Problem) Error() string {
	if p.Line == 0 {
		return p.Path + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.Path, p.Line, p.Text)
}

// An entry is one assignment, and where it was made.
type entry struct {
	key, value string
	path       string
	line       int
}

func (e entry) problem(format string, args ...any) Problem {
	return Problem{e.path, e.line, e.key + "=: " + fmt.Sprintf(format, args...)}
}

// A section is what stands below [name], of the file and of its drop-ins together.
type section struct {
	name    string
	path    string
	line    int
	entries []entry
}

// A File is one declaration.
type File struct {
	Name     string // web.container
	Path     string // where it was found
	sections []*section
	problems []Problem
}

// Parse reads a file. It never fails: what is wrong is remembered, and everything else is understood.
func Parse(name string, text []byte) *File {
	f := &File{Name: path.Base(name), Path: name}
	switch {
	case len(text) > MaxSize:
		f.problem(0, "has %d bytes: expected at most %d", len(text), MaxSize)
		return f
	case !utf8.Valid(text):
		f.problem(1+bytes.Count(text[:validPrefix(text)], []byte("\n")), "is not UTF-8")
		return f
	case bytes.IndexByte(text, 0) >= 0:
		f.problem(1+bytes.Count(text[:bytes.IndexByte(text, 0)], []byte("\n")), "has a NUL byte")
		return f
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	var joined strings.Builder
	number, start := 0, 0 // of this line, and of the first one of a continued line
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line != "" && (line[0] == '#' || line[0] == ';') || line == "" && start == 0 {
			continue // also between two parts of a continued line
		}
		if start == 0 {
			start = number
		}
		if part := strings.TrimRight(line, `\`); (len(line)-len(part))%2 == 1 { // an even number of backslashes is escaped ones
			joined.WriteString(line[:len(line)-1] + " ")
			continue
		}
		f.line(start, strings.TrimSpace(joined.String()+line))
		joined.Reset()
		start = 0
	}
	if start != 0 {
		f.line(start, strings.TrimSpace(joined.String()))
	}
	return f
}

// Broken is a file that could not be read.
func Broken(name string, err error) *File {
	return &File{Name: path.Base(name), Path: name, problems: []Problem{{name, 0, err.Error()}}}
}

func validPrefix(text []byte) int {
	n := 0
	for n < len(text) {
		r, size := utf8.DecodeRune(text[n:])
		if r == utf8.RuneError && size <= 1 {
			break
		}
		n += size
	}
	return n
}

func (f *File) problem(line int, format string, args ...any) {
	f.problems = append(f.problems, Problem{f.Path, line, fmt.Sprintf(format, args...)})
}

// line takes one line, of which continued ones are one.
func (f *File) line(number int, text string) {
	if text == "" {
		return
	}
	if strings.IndexFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) >= 0 {
		f.problem(number, "has a control character: write it as an escape such as \\n")
		return
	}
	if text[0] == '[' {
		name, ok := strings.CutSuffix(text[1:], "]")
		if !ok || name == "" || strings.ContainsAny(name, "[]") {
			f.problem(number, "%.60q is no [Section]", text)
			return
		}
		f.sections = append(f.sections, &section{name: name, path: f.Path, line: number})
		return
	}
	key, value, ok := strings.Cut(text, "=")
	key = strings.TrimSpace(key)
	switch {
	case !ok || key == "":
		f.problem(number, "%.60q is neither [Section] nor Key=value", text)
	case len(f.sections) == 0:
		f.problem(number, "%.60q stands before the first [Section]", text)
	default:
		s := f.sections[len(f.sections)-1]
		s.entries = append(s.entries, entry{key, strings.TrimSpace(value), f.Path, number})
	}
}

// Merge adds a drop-in: its assignments come after those that are there.
func (f *File) Merge(drop *File) {
	f.sections = append(f.sections, drop.sections...)
	f.problems = append(f.problems, drop.problems...)
}

// entries are all assignments below [name], in order.
func (f *File) entries(name string) []entry {
	var out []entry
	for _, s := range f.sections {
		if s.name == name {
			out = append(out, s.entries...)
		}
	}
	return out
}

// DropIns are the names of the directories whose *.conf files belong to a file, the one that decides first: of two files with one
// name the one in an earlier directory is taken.
func DropIns(name string) []string {
	ext := path.Ext(name)
	base := strings.TrimSuffix(name, ext)
	dirs := []string{name + ".d"}
	if at := strings.IndexByte(base, '@'); at >= 0 && at < len(base)-1 {
		base = base[:at+1]
		dirs = append(dirs, base+ext+".d")
	}
	stem := strings.TrimSuffix(base, "@")
	for i := len(stem) - 1; i > 0; i-- {
		if stem[i] == '-' && i < len(stem)-1 {
			dirs = append(dirs, stem[:i+1]+ext+".d")
		}
	}
	if len(ext) > 1 {
		dirs = append(dirs, ext[1:]+".d")
	}
	return dirs
}
