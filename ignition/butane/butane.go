// Package butane turns Butane YAML, the form of Ignition configs that people write, into the JSON of an Ignition config.
//
// It stands before package config's checks, which see JSON only: Translate also tells where in the YAML each JSON value was written, so that
// errors name lines and keys of the file that somebody has before them. Written here, as the butane module with its dependencies
// would add 2.2 MB to the program of every machine.
//
// Variants: "fcos" 1.0.0 to 1.7.0 without what concerns that system's boot disk (boot_device, grub), and "proa" 1.0.0, which is spec 3.6.0 with:
//
//	hostname: web1        # /etc/hostname
//
// Both have Butane's sugar: keys in snake_case; inline and local contents of files, certificates, keys and other configs;
// contents_local of units; ssh_authorized_keys_local; storage.trees; with_mount_unit of file systems. Local files are read where a person runs
// a command; a machine has none.
//
// YAML is read as people write configs: mappings, sequences, scalars plain, quoted and in blocks, brackets, comments. Anchors,
// aliases, tags, complex keys and several documents are refused, keys given twice too. Plain true, false, numbers and null are
// what they look like only where the spec does not want text; a leading 0 means octal.
package butane

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_6/types"
)

// A Place is where a JSON value was written in the YAML.
type Place struct {
	Path         string
	Line, Column int
}

// Config is an Ignition config, and where its values come from by their JSON path ("storage.files[0].path").
type Config struct {
	JSON   []byte
	Places map[string]Place
}

// versions says which spec a version of a variant is.
var versions = map[string]string{
	"proa 1.0.0": "3.6.0",
	"fcos 1.0.0": "3.0.0", "fcos 1.1.0": "3.1.0", "fcos 1.2.0": "3.2.0", "fcos 1.3.0": "3.2.0",
	"fcos 1.4.0": "3.3.0", "fcos 1.5.0": "3.4.0", "fcos 1.6.0": "3.5.0", "fcos 1.7.0": "3.6.0",
}

// Is says whether raw looks like Butane YAML: no JSON, and "variant" at the beginning of a line.
func Is(raw []byte) bool {
	trimmed := bytes.TrimSpace(raw)
	if len(trimmed) == 0 || trimmed[0] == '{' {
		return false
	}
	for line := range bytes.Lines(trimmed) {
		if bytes.HasPrefix(line, []byte("variant:")) || bytes.HasPrefix(line, []byte(`"variant":`)) {
			return true
		}
	}
	return false
}

// Translate translates raw. files holds what "local" keys name; nil if there are none. The error is an *Error.
func Translate(raw []byte, files fs.FS) (*Config, error) {
	root, err := parse(raw)
	if err != nil {
		return nil, err
	}
	if root.kind != mapping {
		return nil, root.wrong("wrong type", "a mapping with variant and version", "something else", "")
	}
	spec, variant, err := specOf(root)
	if err != nil {
		return nil, err
	}
	d := &desugar{files: files}
	if err := d.config(root, variant); err != nil {
		return nil, err
	}
	root.child("ignition", mapping, root).set("version", textNode(spec, root), root)
	e := emitter{places: map[string]Place{}}
	e.value(root, reflect.TypeFor[types.Config](), "")
	return &Config{JSON: e.b.Bytes(), Places: e.places}, nil
}

func (n *node) wrong(problem, expected, found, next string) *Error {
	return &Error{Line: n.line, Column: n.column, Path: n.path, Problem: problem, Expected: expected, Found: found, NextStep: next}
}

func specOf(root *node) (spec, variant string, err error) {
	v, number := root.take("variant"), root.take("version")
	if v == nil || number == nil || v.kind != scalar || number.kind != scalar {
		return "", "", root.wrong("missing variant or version", "variant: proa, version: 1.0.0", "nothing", `add "variant: proa" and "version: 1.0.0"`)
	}
	if spec = versions[v.text+" "+number.text]; spec == "" {
		return "", "", v.wrong("unsupported variant or version", "proa 1.0.0, or fcos 1.0.0 to 1.7.0", fmt.Sprintf("%.40q", v.text+" "+number.text), "write the config for a supported version")
	}
	return spec, v.text, nil
}

// emitter writes JSON: typed where the spec has a type, as the scalar looks elsewhere, for package config to report.
type emitter struct {
	b      bytes.Buffer
	places map[string]Place
}

func (e *emitter) value(n *node, t reflect.Type, path string) {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	e.places[path] = Place{Path: n.path, Line: n.line, Column: n.column}
	switch n.kind {
	case mapping:
		e.mapping(n, t, path)
	case sequence:
		var item reflect.Type
		if t != nil && t.Kind() == reflect.Slice {
			item = t.Elem()
		}
		e.b.WriteByte('[')
		for i, v := range n.items {
			if i > 0 {
				e.b.WriteByte(',')
			}
			e.value(v, item, fmt.Sprintf("%s[%d]", path, i))
		}
		e.b.WriteByte(']')
	default:
		e.scalar(n, t)
	}
}

func (e *emitter) mapping(n *node, t reflect.Type, path string) {
	known := map[string]reflect.Type{}
	if t != nil && t.Kind() == reflect.Struct {
		known = Fields(t)
	}
	e.b.WriteByte('{')
	for i, p := range n.pairs {
		if i > 0 {
			e.b.WriteByte(',')
		}
		key := Camel(p.key.text)
		if known[key] != nil && p.key.text != Snake(key) { // JSON's name for it is not YAML's
			key += " "
		}
		child := key
		if path != "" {
			child = path + "." + key
		}
		e.text(key)
		e.b.WriteByte(':')
		e.value(p.value, known[key], child)
		if known[key] == nil {
			e.places[child] = Place{Path: p.key.path, Line: p.key.line, Column: p.key.column}
		}
	}
	e.b.WriteByte('}')
}

func (e *emitter) scalar(n *node, t reflect.Type) {
	number, isNumber := n.integer()
	truth, isBool := n.boolean()
	wantsText := t != nil && t.Kind() == reflect.String
	switch {
	case n.isNull():
		e.b.WriteString("null")
	case wantsText || n.quoted:
		e.text(n.text)
	case isBool:
		fmt.Fprint(&e.b, truth)
	case isNumber:
		fmt.Fprint(&e.b, number)
	default:
		e.text(n.text)
	}
}

func (e *emitter) text(s string) {
	b, err := json.Marshal(s)
	if err != nil { // a string never fails
		b = []byte(`""`)
	}
	e.b.Write(b)
}

// Fields returns the JSON keys of struct t, those of embedded structs included.
func Fields(t reflect.Type) map[string]reflect.Type {
	m := map[string]reflect.Type{}
	for f := range t.Fields() {
		if f.Anonymous {
			for k, v := range Fields(f.Type) {
				m[k] = v
			}
			continue
		}
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		m[key] = f.Type
	}
	return m
}

// Camel is the JSON name of a YAML key: ssh_authorized_keys is sshAuthorizedKeys.
func Camel(key string) string {
	switch key {
	case "size_mib":
		return "sizeMiB"
	case "start_mib":
		return "startMiB"
	}
	parts := strings.Split(key, "_")
	for i := 1; i < len(parts); i++ {
		if parts[i] != "" {
			parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
		}
	}
	return strings.Join(parts, "")
}

// Snake is the YAML name of a JSON key.
func Snake(key string) string {
	switch key {
	case "sizeMiB":
		return "size_mib"
	case "startMiB":
		return "start_mib"
	}
	var b strings.Builder
	for i := range len(key) {
		if c := key[i]; 'A' <= c && c <= 'Z' {
			b.WriteByte('_')
			b.WriteByte(c + 'a' - 'A')
			continue
		}
		b.WriteByte(key[i])
	}
	return b.String()
}

// errNoFiles is why a "local" key cannot be read.
var errNoFiles = errors.New("there are no files beside this config")
