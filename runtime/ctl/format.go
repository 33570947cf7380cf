package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// formatUsage is the help of --format.
const formatUsage = "json, or a line for each with {{.field}}, {{.field.field}}, {{index .field \"key\"}}, {{json .field}}: names are those of the JSON, in any case, and docker's; \"table ...\": with a heading"

// place is one {{...}} of a template: the part of Go's templates that people use on command lines, so that the program need not link
// those, which keep the linker from leaving anything out.
var place = regexp.MustCompile(`\{\{\s*(json\s+|index\s+)?\.([A-Za-z0-9_.]*)(?:\s+"([^"]*)")?\s*\}\}`)

// formatEach prints a line for each value. What docker calls otherwise than the JSON does is asked of docker, which may be nil. A template
// that begins with "table" gets a heading and columns.
func formatEach[T any](w io.Writer, template string, values []T, docker func(T) any) error {
	template, table := strings.CutPrefix(template, "table ")
	template = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(template)
	if rest := place.ReplaceAllString(template, ""); strings.Contains(rest, "{{") || strings.Contains(rest, "}}") {
		return fmt.Errorf("--format: want places such as {{.name}} or {{json .labels}}, found %q", template)
	}
	if table {
		columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		defer columns.Flush()
		w = columns
		fmt.Fprintln(w, place.ReplaceAllStringFunc(template, func(p string) string {
			m := place.FindStringSubmatch(p)
			return strings.ToUpper(m[2][strings.LastIndexByte(m[2], '.')+1:])
		}))
	}
	for _, v := range values {
		f := fields{kind: reflect.TypeOf(v)}
		var err error
		if f.own, err = asTree(v); err == nil && docker != nil {
			f.docker, err = asTree(docker(v))
		}
		if err != nil {
			return err
		}
		line := place.ReplaceAllStringFunc(template, func(p string) string {
			text, ferr := f.text(place.FindStringSubmatch(p))
			if ferr != nil {
				err = ferr
			}
			return text
		})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// asTree is what JSON makes of a value.
func asTree(v any) (tree any, err error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	return tree, dec.Decode(&tree)
}

// fields are what a template can ask of one value.
type fields struct {
	own, docker any
	kind        reflect.Type
}

// text is what stands in one place: m are the parts of its match.
func (f fields) text(m []string) (string, error) {
	how, path, key := strings.TrimSpace(m[1]), m[2], m[3]
	if how == "" && key != "" && strings.EqualFold(path, "label") { // docker's {{.Label "key"}}
		how, path = "index", "labels"
	}
	node, err := f.find(path)
	if err != nil {
		return "", err
	}
	if how == "index" {
		object, _ := node.(map[string]any)
		node = object[key]
	}
	if how != "json" {
		switch text, ok := node.(string); {
		case ok:
			return text, nil
		case node == nil:
			return "", nil
		}
	}
	out, err := json.Marshal(node)
	return string(out), err
}

// find goes down a path of names. One that no value of the kind has is an error; fields without a value are left out of the JSON.
func (f fields) find(path string) (any, error) {
	first, rest, deep := strings.Cut(path, ".")
	if path == "" {
		return f.own, nil
	}
	node, ok := child(f.own, first)
	known := jsonNames(f.kind)
	if !ok && !slices.ContainsFunc(known, func(n string) bool { return sameName(n, first) }) {
		if node, ok = child(f.docker, first); !ok && len(known) > 0 {
			return nil, fmt.Errorf("--format: there is no field %q: want one of %s", first, strings.Join(known, ", "))
		}
	}
	for deep {
		first, rest, deep = strings.Cut(rest, ".")
		node, _ = child(node, first)
	}
	return node, nil
}

func child(node any, name string) (any, bool) {
	object, _ := node.(map[string]any)
	for k, v := range object {
		if sameName(k, name) {
			return v, true
		}
	}
	return nil, false
}

func sameName(a, b string) bool {
	return strings.EqualFold(strings.ReplaceAll(a, "_", ""), strings.ReplaceAll(b, "_", ""))
}

// jsonNames are the names that a struct's fields have in JSON, sorted; none for anything else.
func jsonNames(t reflect.Type) (out []string) {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && name == "":
			out = append(out, jsonNames(field.Type)...)
		case name != "" && name != "-":
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
