package config

import (
	"fmt"
	"strings"
	"unicode"
)

// A Place is where something stands in a config: what an error must tell the person who wrote it.
type Place struct {
	Config string `json:"config"` // file, URL without secrets, or "merge[0] of ..."
	Path   string `json:"path"`   // JSON path in that config: storage.files[0].mode; empty for the whole config
	Line   int    `json:"line"`   // from 1; 0 if unknown
	Column int    `json:"column"` // in bytes, from 1; 0 if unknown
}

// String is name:line:column: path, as compilers write it.
func (p Place) String() string {
	s := p.Config
	if p.Line > 0 {
		s = fmt.Sprintf("%s:%d:%d", s, p.Line, p.Column)
	}
	if p.Path != "" {
		s += ": " + p.Path
	}
	return s
}

// correct is the next step where nothing better is known than the place.
const correct = "correct it there; ignition check tells whether it is right"

// An Issue is one thing wrong with a config. Found never holds a secret: no file contents, hashes of
// passwords, headers, or credentials of URLs.
type Issue struct {
	Place
	Problem  string // "unknown key"
	Expected string // what would have been right; may be empty
	Found    string // what is there; may be empty
	Next     string // what to do
	Warning  bool   // true: the config can be applied all the same
	cause    error  // what a caller may branch on
}

// Error is the issue on one line.
func (i Issue) Error() string { return i.Place.String() + ": " + i.Text() }

// Text is Error without the place.
func (i Issue) Text() string {
	s := i.Problem
	if i.Expected != "" {
		s += ": expected " + i.Expected
	}
	if i.Found != "" {
		sep := ": found "
		if i.Expected != "" {
			sep = ", found "
		}
		s += sep + i.Found
	}
	if i.Next != "" {
		s += "; " + i.Next
	}
	return s
}

// Screen is the issue as a block of lines for a console.
func (i Issue) Screen() string {
	var b strings.Builder
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %-10s %s\n", label+":", shown(text))
		}
	}
	line("config", i.Config)
	line("path", i.Path)
	if i.Line > 0 {
		line("line", fmt.Sprintf("%d, column %d", i.Line, i.Column))
	}
	line("problem", i.Problem)
	line("expected", i.Expected)
	line("found", i.Found)
	line("next step", i.Next)
	return b.String()
}

// maxShown is how many bytes of a text are shown: more would push the rest off the screen.
const maxShown = 600

// shown is text for a terminal: no part of it, which may be a server's, moves the cursor.
func shown(text string) string {
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// Issues is one or more errors of a config; warnings are never among them.
type Issues []Issue

// Error is one line for each issue.
func (is Issues) Error() string {
	lines := make([]string, len(is))
	for n, i := range is {
		lines[n] = i.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the causes of issues that have one: that a source needs the network is not wrong with a config.
func (is Issues) Unwrap() (causes []error) {
	for _, i := range is {
		if i.cause != nil {
			causes = append(causes, i.cause)
		}
	}
	return causes
}

// split parts errors from warnings.
func split(all []Issue) (errs, warnings Issues) {
	for _, i := range all {
		if i.Warning {
			warnings = append(warnings, i)
		} else {
			errs = append(errs, i)
		}
	}
	return errs, warnings
}
