// Package config turns the bytes of an Ignition config into a checked value, or into errors that a person can act on.
//
// It stands between the platform, which gives bytes (package source), and the plan made of the value (package plan).
// The spec is Ignition 3.0.0 to 3.6.0, with the types, the validation and the merging of upstream's config/v3_6; version.go brings older
// versions up to it.
// What this package adds: unknown keys are errors, not warnings; every type error is reported, not only the first;
// each error names config, JSON path, line and column, what was expected, what was found and what to do; values
// keep their places through merges.
//
// Refused, never ignored: 2.x and experimental versions, and cloud-config.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/coreos/vcontext/path"
	"github.com/coreos/vcontext/report"

	"github.com/proa-os/proa/ignition/butane"
)

// MaxSize is the largest config accepted, in bytes, before and after decompression.
const MaxSize = 32 << 20

// A Document is one config that has passed every check.
type Document struct {
	Name     string
	Config   types.Config // as spec 3.6.0
	Warnings Issues
	places   map[string]Place
}

// Parse checks raw, an Ignition config or Butane YAML, which errors call name. The error is of type Issues.
func Parse(name string, raw []byte) (*Document, error) { return parse(name, raw, nil) }

// parse is Parse with the files that Butane's "local" keys name; nil if there are none.
func parse(name string, raw []byte, files fs.FS) (*Document, error) {
	if butane.Is(raw) && len(raw) <= MaxSize {
		return parseButane(name, raw, files)
	}
	return parseJSON(name, raw)
}

func parseJSON(name string, raw []byte) (*Document, error) {
	if i, ok := notJSON(name, raw); ok {
		return nil, Issues{i}
	}
	minor, issues := specVersion(name, raw)
	if len(issues) > 0 {
		return nil, issues
	}
	w := walk(name, raw, minor)
	if len(w.issues) > 0 {
		return nil, Issues(w.issues)
	}
	d := &Document{Name: name, places: w.places()}
	if err := json.Unmarshal(raw, &d.Config); err != nil {
		return nil, Issues{{Place: Place{Config: name}, Problem: err.Error(), Next: correct}}
	}
	rpt := upgrade(&d.Config, minor)
	rpt.Merge(validateValue(d.Config))
	errs, warnings := split(append(d.translate(raw, rpt), d.headers()...))
	if len(errs) > 0 {
		return nil, errs
	}
	d.Warnings = warnings
	return d, nil
}

// Place is where path, or the nearest thing around it, stands.
func (d *Document) Place(path string) Place { return place(d.places, d.Name, path) }

func place(places map[string]Place, name, path string) Place {
	for p := path; ; p = p[:max(0, strings.LastIndexAny(p, ".["))] {
		if at, ok := places[p]; ok {
			at.Path += path[len(p):]
			return at
		}
		if p == "" {
			return Place{Config: name, Path: path}
		}
	}
}

func (w *walker) places() map[string]Place {
	m := make(map[string]Place, len(w.at))
	for p, offset := range w.at {
		line, column := w.lineColumn(offset)
		m[p] = Place{Config: w.name, Path: p, Line: line, Column: column}
	}
	return m
}

// notJSON reports what is not JSON at all, with a guess at what it is.
func notJSON(name string, raw []byte) (Issue, bool) {
	i := Issue{Place: Place{Config: name}, Expected: "an Ignition config: a JSON object with ignition.version", Next: "give it a whole config; ignition check tells whether it is one"}
	switch trimmed := bytes.TrimSpace(raw); {
	case len(trimmed) == 0:
		i.Problem, i.Found = "empty config", fmt.Sprintf("%d bytes", len(raw))
		return i, true
	case len(raw) > MaxSize:
		i.Problem, i.Found = "config too large", fmt.Sprintf("%d bytes, more than %d", len(raw), MaxSize)
		i.Next = "put large files on a web server and refer to them by URL and hash"
		return i, true
	case bytes.HasPrefix(trimmed, []byte("#cloud-config")):
		i.Problem, i.Found = "not an Ignition config", "cloud-config"
		i.Next = "write it as an Ignition config, or as Butane YAML with variant: proa"
		return i, true
	}
	var whole json.RawMessage
	err := json.Unmarshal(raw, &whole)
	if err == nil {
		tok, _ := json.NewDecoder(bytes.NewReader(raw)).Token() // it is valid
		i.Problem, i.Found = "wrong type", kindOfToken(tok)
		return i, bytes.TrimSpace(raw)[0] != '{'
	}
	i.Problem, i.Expected, i.Next = "invalid JSON", "JSON as RFC 8259 describes it", correct
	i.Found = err.Error()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset := int(syntax.Offset) - 1 // Offset is behind the offending byte
		if strings.Contains(err.Error(), "unexpected end") {
			offset = len(raw)
			i.Next = "the config was cut off, or a bracket is missing"
		}
		i.Line, i.Column = lineColumn(raw, offset)
		if offset > 0 && offset < len(raw) && raw[offset-1] == '0' && '0' <= raw[offset] && raw[offset] <= '9' {
			i.Next = "JSON has no octal numbers: write 0644 as 420, 0755 as 493, 0600 as 384"
		}
	}
	return i, true
}

// specVersion returns the minor version that raw says it is written for, or why it cannot be read.
func specVersion(name string, raw []byte) (minor int, issues Issues) {
	var stub struct {
		Ignition struct {
			Version *string `json:"version"`
		} `json:"ignition"`
	}
	if err := json.Unmarshal(raw, &stub); err != nil {
		return 0, walk(name, raw, newest).issues
	}
	const key = "ignition.version"
	i := Issue{Place: place(walk(name, raw, newest).places(), name, key), Problem: "unsupported spec version", Expected: "3.0.0 to 3.6.0"}
	if stub.Ignition.Version == nil {
		i.Problem, i.Found, i.Next = "missing spec version", "nothing", `add "ignition": {"version": "3.6.0"}`
		return 0, Issues{i}
	}
	v := *stub.Ignition.Version
	if minor, ok := minorOf(v); ok {
		return minor, nil
	}
	switch i.Found = quote(v); {
	case strings.HasPrefix(v, "2."):
		i.Next = "translate the config with ign-converter"
	case strings.HasSuffix(v, "-experimental"):
		i.Next = "use the newest stable version, 3.6.0"
	default:
		i.Next = "write the config for a supported version"
	}
	return 0, Issues{i}
}

// translate makes issues of upstream's report.
func (d *Document) translate(raw []byte, rpt report.Report) []Issue {
	var all []Issue
	for _, e := range rpt.Entries {
		if e.Kind == report.Info {
			continue
		}
		p := pathString(e.Context)
		i := Issue{Place: d.Place(p), Problem: e.Message, Warning: !e.Kind.IsFatal()}
		explain(&i, p, valueAt(raw, e.Context))
		// Where a line of YAML is missing a name goes on, with what is secret perhaps.
		if end := strings.IndexAny(i.Found, " \\"); end > 0 && strings.HasSuffix(p, ".name") {
			i.Found = i.Found[:end] + `..."`
		}
		all = append(all, i)
	}
	return all
}

// headers reports names that are none in HTTP (RFC 9110, section 5.6.2). Nobody could send them, and the error would show a header that
// was written whole in the place of its name.
func (d *Document) headers() (all []Issue) {
	const others = "!#$%&'*+-.^_`|~"
	for path, r := range resources(d.Config) {
		for n, h := range r.HTTPHeaders {
			if strings.ContainsFunc(h.Name, func(c rune) bool {
				return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !strings.ContainsRune(others, c)
			}) {
				all = append(all, Issue{Place: d.Place(fmt.Sprintf("%s.httpHeaders[%d].name", path, n)), Problem: "invalid name of an HTTP header",
					Expected: "letters, digits and -, such as Authorization", Next: `write the name alone, and the rest as "value"`})
			}
		}
	}
	return all
}

// pathString writes a path as places are keyed: storage.files[0].mode.
func pathString(c path.ContextPath) string {
	var s string
	for _, e := range c.Path {
		if n, ok := e.(int); ok {
			s += fmt.Sprintf("[%d]", n)
			continue
		}
		s = join(s, fmt.Sprint(e))
	}
	return s
}

// valueAt returns the JSON at c, nil if there is none.
func valueAt(raw []byte, c path.ContextPath) json.RawMessage {
	for _, e := range c.Path {
		switch e := e.(type) {
		case int:
			var list []json.RawMessage
			if json.Unmarshal(raw, &list) != nil || e >= len(list) {
				return nil
			}
			raw = list[e]
		default:
			var object map[string]json.RawMessage
			if json.Unmarshal(raw, &object) != nil {
				return nil
			}
			raw = object[fmt.Sprint(e)]
		}
	}
	return raw
}
