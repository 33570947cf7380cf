package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// formatUsage is the help of --format.
const formatUsage = "json, or a line for each with {{.field}}, {{.field.field}}, {{index .field \"key\"}}, {{json .field}}: names are those of the JSON, in any case"

// place is one {{...}} of a template: the part of Go's templates that people use on command lines, so that the program need not link
// those, which keep the linker from leaving anything out.
var place = regexp.MustCompile(`\{\{\s*(json\s+|index\s+)?\.([A-Za-z0-9_.]*)(?:\s+"([^"]*)")?\s*\}\}`)

// formatEach prints a line for each value.
func formatEach[T any](w io.Writer, template string, values []T) error {
	template = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(template)
	if rest := place.ReplaceAllString(template, ""); strings.Contains(rest, "{{") || strings.Contains(rest, "}}") {
		return fmt.Errorf("--format: want places such as {{.name}} or {{json .labels}}, found %q", template)
	}
	for _, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		var tree any
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.UseNumber()
		if err := dec.Decode(&tree); err != nil {
			return err
		}
		line := place.ReplaceAllStringFunc(template, func(p string) string {
			m := place.FindStringSubmatch(p)
			node, ferr := find(tree, m[2])
			if ferr == nil && strings.HasPrefix(m[1], "index") {
				object, _ := node.(map[string]any)
				node = object[m[3]]
			}
			if ferr != nil {
				err = ferr
				return ""
			}
			text, ok := node.(string)
			if ok && !strings.HasPrefix(m[1], "json") {
				return text
			}
			if node == nil && !strings.HasPrefix(m[1], "json") {
				return ""
			}
			out, _ := json.Marshal(node)
			return string(out)
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

// find goes down a path of names. One that is not there is an error on the first level, and nothing below it: fields without a value are
// left out of the JSON.
func find(tree any, path string) (any, error) {
	if path == "" {
		return tree, nil
	}
	for name := range strings.SplitSeq(path, ".") {
		object, ok := tree.(map[string]any)
		if !ok {
			return nil, nil
		}
		tree = nil
		for k, v := range object {
			if strings.EqualFold(strings.ReplaceAll(k, "_", ""), strings.ReplaceAll(name, "_", "")) {
				tree = v
			}
		}
	}
	return tree, nil
}
