package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/internal/nearest"
)

// A walker reads JSON beside the Go type it is for. It remembers where every value stands and reports unknown
// keys, keys given twice and wrong types: all of them, where encoding/json stops at the first and is silent
// about the rest.
type walker struct {
	name   string // of the config
	raw    []byte
	minor  int // of the spec version
	dec    *json.Decoder
	at     map[string]int // JSON path -> offset of the value
	breaks []int          // offsets of line breaks
	issues []Issue
}

// walk expects raw to be valid JSON, of spec version 3.minor.
func walk(name string, raw []byte, minor int) *walker {
	w := &walker{name: name, raw: raw, minor: minor, dec: json.NewDecoder(bytes.NewReader(raw)), at: map[string]int{}}
	w.dec.UseNumber()
	for i, c := range raw {
		if c == '\n' {
			w.breaks = append(w.breaks, i)
		}
	}
	w.value("", reflect.TypeFor[types.Config]())
	return w
}

// next returns a token and the offset of its first byte.
func (w *walker) next() (json.Token, int) {
	from := int(w.dec.InputOffset())
	for from < len(w.raw) && strings.IndexByte(" \t\r\n,:", w.raw[from]) >= 0 {
		from++
	}
	tok, err := w.dec.Token()
	if err != nil {
		return nil, from
	}
	return tok, from
}

func (w *walker) value(path string, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	tok, from := w.next()
	w.at[path] = from
	if tok == nil {
		return // null: as if the key were absent
	}
	delim, _ := tok.(json.Delim)
	switch {
	case t.Kind() == reflect.Struct && delim == '{':
		w.object(path, t)
	case t.Kind() == reflect.Slice && delim == '[':
		for n := 0; w.dec.More(); n++ {
			w.value(fmt.Sprintf("%s[%d]", path, n), t.Elem())
		}
		w.next()
	case scalarFits(tok, t):
	default:
		w.skipRest(delim)
		w.mismatch(path, from, tok, t)
	}
}

func (w *walker) object(path string, t reflect.Type) {
	known := keys(t, path, w.minor)
	seen := map[string]bool{}
	for w.dec.More() {
		tok, from := w.next()
		key, ok := tok.(string)
		if !ok {
			return
		}
		child := join(path, key)
		ft, ok := known[key]
		switch {
		case seen[key]:
			w.report(from, Issue{Place: Place{Path: child}, Problem: "key given twice", Expected: "each key once", Next: "keep one of them"})
		case !ok:
			w.report(from, Issue{Place: Place{Path: child}, Problem: "unknown key", Expected: "one of " + names(known), Found: quote(key), Next: suggest(key, known)})
		}
		seen[key] = true
		if ok {
			w.value(child, ft)
			continue
		}
		tok, _ = w.next()
		delim, _ := tok.(json.Delim)
		w.skipRest(delim)
	}
	w.next()
}

// skipRest reads on to the end of the object or array that delim has opened.
func (w *walker) skipRest(delim json.Delim) {
	if delim != '{' && delim != '[' {
		return
	}
	for depth := 1; depth > 0; {
		tok, err := w.dec.Token()
		if err != nil {
			return
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
}

// mismatch reports the value that begins with tok and has just been read. It shows the value itself where no secret can be: the key, or the
// type that belongs there, says so. What is in an object has a key of its own, and a header may be written where its name belongs.
func (w *walker) mismatch(path string, from int, tok json.Token, t reflect.Type) {
	i := Issue{Place: Place{Path: path}, Problem: "wrong type", Found: kindOfToken(tok)}
	i.Expected, i.Next = kindOf(t)
	_, always := tok.(bool)
	value := string(w.raw[from:w.dec.InputOffset()])
	shown := always || t.Kind() == reflect.Int || t.Kind() == reflect.Bool || harmless(path)
	if shown && !strings.Contains(value, "{") && !strings.Contains(path, ".httpHeaders[") {
		i.Found += ", " + clip(strings.Join(strings.Fields(value), " "))
	}
	if s, ok := tok.(string); ok && strings.HasSuffix(path, ".mode") {
		if v, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32); err == nil {
			i.Next = fmt.Sprintf("write %d, which is %#o in decimal", v, v)
		}
	}
	w.report(from, i)
}

func (w *walker) report(offset int, i Issue) {
	i.Config = w.name
	i.Line, i.Column = w.lineColumn(offset)
	w.issues = append(w.issues, i)
}

// scalarFits says whether encoding/json would store tok in a t.
func scalarFits(tok json.Token, t reflect.Type) bool {
	switch v := tok.(type) {
	case string:
		return t.Kind() == reflect.String
	case bool:
		return t.Kind() == reflect.Bool
	case json.Number:
		_, err := strconv.ParseInt(v.String(), 10, strconv.IntSize)
		return t.Kind() == reflect.Int && err == nil
	}
	return false
}

// kindOf says what a t is written as, and how to come there.
func kindOf(t reflect.Type) (kind, next string) {
	switch t.Kind() {
	case reflect.Struct:
		return "an object", "write it as keys with values"
	case reflect.Slice:
		return "a list", "put it into a list, even if it is the only one"
	case reflect.Bool:
		return "true or false", "write true or false, without quotes"
	case reflect.Int:
		return "an integer", "write its digits, without quotes and without a point"
	}
	return "a string", "write one value, in quotes"
}

func kindOfToken(tok json.Token) string {
	switch v := tok.(type) {
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case json.Number, float64:
		return "a number"
	case json.Delim:
		if v == '[' {
			return "a list"
		}
		return "an object"
	}
	return "null"
}

func names(m map[string]reflect.Type) string {
	s := make([]string, 0, len(m))
	for k := range m {
		s = append(s, k)
	}
	sort.Strings(s)
	return strings.Join(s, ", ")
}

// suggest names the known key that differs least from key, if one is near.
func suggest(key string, known map[string]reflect.Type) string {
	if best := nearest.Word(key, slices.Sorted(maps.Keys(known))); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "remove it, or check the spec version"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// lineColumn counts from 1, columns in bytes.
func (w *walker) lineColumn(offset int) (line, column int) {
	line = sort.SearchInts(w.breaks, offset)
	if line == 0 {
		return 1, offset + 1
	}
	return line + 1, offset - w.breaks[line-1]
}

func lineColumn(raw []byte, offset int) (line, column int) {
	before := raw[:max(0, min(offset, len(raw)))]
	return bytes.Count(before, []byte{'\n'}) + 1, len(before) - bytes.LastIndexByte(before, '\n')
}

func quote(s string) string { return strconv.Quote(clip(s)) }

func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
