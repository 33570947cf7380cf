package deb_test

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/deb"
)

func TestParagraphs(t *testing.T) {
	r := deb.NewParagraphReader("text", strings.NewReader(
		"# comment\n\n\nPackage: a1\nVersion:1.0  \r\nDescription: short\n long\n .\n# inside\n\tmore \nEmpty:\n\n \nPackage: b2"))
	p, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"Package": "a1", "package": "a1", "VERSION": "1.0", "Description": "short\nlong\n.\nmore", "Empty": "", "Absent": "",
	} {
		if got := p.Get(field); got != want {
			t.Errorf("%s: got %q, want %q", field, got, want)
		}
	}
	if !p.Has("empty") || p.Has("absent") || p.Line != 4 {
		t.Errorf("got empty %v, absent %v, line %d, want true, false, 4", p.Has("empty"), p.Has("absent"), p.Line)
	}
	if p, err = r.Next(); err != nil || p.Get("Package") != "b2" {
		t.Errorf("second paragraph: got %q, %v", p.Get("Package"), err)
	}
	if _, err = r.Next(); err != io.EOF {
		t.Errorf("behind the last: got %v, want io.EOF", err)
	}
}

func TestParagraphErrors(t *testing.T) {
	for in, want := range map[string]string{
		"Package: a1\nnonsense\n":              "text:2: expected \"Field: value\"",
		" continued\n":                         "text:1: continuation line before any field",
		"A: 1\n\n cont\n":                      "text:3: continuation line before any field",
		"A: 1\nB: 2\na: 3\n":                   "text:3: field a appears twice",
		": x\n":                                `field name "" is not allowed`,
		"-A: x\n":                              `field name "-A" is not allowed`,
		"A B: x\n":                             `field name "A B" is not allowed`,
		"A: 1\nB: " + strings.Repeat("x", 2e6): "text:2: line has more than",
	} {
		r := deb.NewParagraphReader("text", strings.NewReader(in))
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want an error with %q", in, err, want)
		}
	}
}

func TestParseParagraphWantsOne(t *testing.T) {
	if _, err := deb.ParseParagraph("control", []byte("A: 1\n\nB: 2\n")); err == nil || !strings.Contains(err.Error(), "control:3: expected one paragraph") {
		t.Errorf("two paragraphs: got %v", err)
	}
	if _, err := deb.ParseParagraph("control", nil); err == nil || !strings.Contains(err.Error(), "no paragraph") {
		t.Errorf("empty: got %v", err)
	}
}

// print writes a paragraph so that it reads back as it is.
func print(p deb.Paragraph) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p.Fields())) {
		fmt.Fprintf(&b, "%s: %s\n", name, strings.ReplaceAll(p.Fields()[name], "\n", "\n "))
	}
	return b.String() + "\n"
}

func FuzzParagraph(f *testing.F) {
	f.Add("Package: a1\nDescription: x\n y\n\nPackage: b2\n")
	f.Add("#c\nA:\n  1\n\t2 \r\n .\n#c\n 3\nB: x:y")
	f.Fuzz(func(t *testing.T, s string) {
		r := deb.NewParagraphReader("fuzz", strings.NewReader(s))
		for range len(s) + 1 {
			p, err := r.Next()
			if err != nil {
				return
			}
			if p.Line == 0 || len(p.Fields()) == 0 {
				t.Fatal("a paragraph without a field")
			}
			if strings.Contains(print(p), "\n \n") {
				continue // an empty continuation line, which ends a paragraph when it is written
			}
			if again, err := deb.ParseParagraph("again", []byte(print(p))); err != nil || !maps.Equal(again.Fields(), p.Fields()) {
				t.Fatalf("got %q, printed and read again %q, %v", p.Fields(), again.Fields(), err)
			}
		}
		t.Fatal("more paragraphs than bytes")
	})
}
