package spec

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Encoding/json prepares tables for every type that it meets, which for config.json takes longer than all the rest of the parsing, and
// this program starts anew for each container. This decoder looks at the types as it goes. What it finds wrong it leaves to
// encoding/json, so errors are that package's; what it accepts is decoded to the same (TestDecodeAgrees, FuzzDecode).

// decode is json.Unmarshal for pointers to structures like those of specs-go.
func decode(b []byte, v any) error {
	d := newDecoder(b)
	to := reflect.ValueOf(v).Elem()
	if d.value(to, 0) && d.end() {
		return nil
	}
	to.SetZero()
	return json.Unmarshal(b, v)
}

// maxDepth is far above what any structure of the specification has.
const maxDepth = 100

// A decoder walks b. Its methods report whether they understood.
type decoder struct {
	b      []byte
	s      string // the same: strings of the result are parts of it
	at     int
	fields []fields
}

// fields are the JSON names of a structure's fields; "" for one that has none.
type fields struct {
	of    reflect.Type
	names []string
}

func newDecoder(b []byte) *decoder { return &decoder{b: b, s: string(b)} }

func (d *decoder) space() {
	for d.at < len(d.b) {
		switch d.b[d.at] {
		case ' ', '\t', '\r', '\n':
			d.at++
		default:
			return
		}
	}
}

// next skips white space and returns the byte behind it, 0 at the end.
func (d *decoder) next() byte {
	d.space()
	if d.at == len(d.b) {
		return 0
	}
	return d.b[d.at]
}

func (d *decoder) take(c byte) bool {
	if d.next() != c {
		return false
	}
	d.at++
	return true
}

func (d *decoder) end() bool { return d.next() == 0 && d.at == len(d.b) }

func (d *decoder) word(w string) bool {
	if len(d.b)-d.at < len(w) || string(d.b[d.at:d.at+len(w)]) != w {
		return false
	}
	d.at += len(w)
	return true
}

// value decodes one value into v; an invalid v skips it.
func (d *decoder) value(v reflect.Value, depth int) bool {
	if depth > maxDepth {
		return false
	}
	c := d.next()
	if v.IsValid() && c == 'n' {
		switch v.Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
			v.SetZero()
		}
		return d.word("null")
	}
	if v.IsValid() && v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(v.Elem(), depth+1)
	}
	if v.IsValid() && v.Kind() == reflect.Interface {
		return false // other systems' sections only
	}
	switch {
	case c == '{':
		return d.object(v, depth)
	case c == '[':
		return d.array(v, depth)
	case c == '"':
		s, ok := d.text()
		if ok && v.IsValid() {
			if ok = v.Kind() == reflect.String; ok {
				v.SetString(s)
			}
		}
		return ok
	case c == 't' || c == 'f':
		if !d.word("true") && !d.word("false") {
			return false
		}
		if v.IsValid() {
			if v.Kind() != reflect.Bool {
				return false
			}
			v.SetBool(c == 't')
		}
		return true
	case c == 'n':
		return d.word("null")
	}
	return d.number(v)
}

func (d *decoder) number(v reflect.Value) bool {
	from := d.at
	for d.at < len(d.b) && strings.IndexByte("+-.eE0123456789", d.b[d.at]) >= 0 {
		d.at++
	}
	text := string(d.b[from:d.at])
	digits := strings.TrimPrefix(text, "-")
	for _, c := range digits {
		if c < '0' || c > '9' {
			return false // fractions and exponents are encoding/json's
		}
	}
	if digits == "" || len(digits) > 1 && digits[0] == '0' {
		return false
	}
	switch {
	case !v.IsValid():
		return true
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v.OverflowInt(n) {
			return false
		}
		v.SetInt(n)
		return true
	case v.CanUint():
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || v.OverflowUint(n) {
			return false
		}
		v.SetUint(n)
		return true
	}
	return false
}

func (d *decoder) array(v reflect.Value, depth int) bool {
	d.at++
	if v.IsValid() && v.Kind() != reflect.Slice {
		return false
	}
	if v.IsValid() {
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return false
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 4))
	}
	if d.take(']') {
		return true
	}
	for n := 0; ; n++ {
		elem := reflect.Value{}
		if v.IsValid() {
			if n == v.Cap() {
				v.Grow(n)
			}
			v.SetLen(n + 1)
			elem = v.Index(n)
		}
		if !d.value(elem, depth+1) {
			return false
		}
		if d.take(']') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

func (d *decoder) object(v reflect.Value, depth int) bool {
	d.at++
	isMap := v.IsValid() && v.Kind() == reflect.Map
	if v.IsValid() && !isMap && v.Kind() != reflect.Struct {
		return false
	}
	if isMap {
		if v.Type().Key().Kind() != reflect.String {
			return false
		}
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
	}
	if d.take('}') {
		return true
	}
	for {
		if d.next() != '"' {
			return false
		}
		key, ok := d.text()
		if !ok || !d.take(':') {
			return false
		}
		switch {
		case isMap:
			elem := reflect.New(v.Type().Elem()).Elem()
			if !d.value(elem, depth+1) {
				return false
			}
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), elem)
		case v.IsValid():
			f := d.field(v, key)
			if f.IsValid() && f.Kind() == reflect.Slice && f.Len() > 0 {
				return false // a key that appears twice: encoding/json decodes into the old elements
			}
			if !d.value(f, depth+1) {
				return false
			}
		default:
			if !d.value(reflect.Value{}, depth+1) {
				return false
			}
		}
		if d.take('}') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

// field finds the field of a JSON name as encoding/json does: exactly, or else whatever the case; those of embedded structures as well.
func (d *decoder) field(v reflect.Value, name string) reflect.Value {
	if f := d.find(v, func(tag string) bool { return tag == name }); f.IsValid() {
		return f
	}
	return d.find(v, func(tag string) bool { return strings.EqualFold(tag, name) })
}

func (d *decoder) find(v reflect.Value, is func(string) bool) reflect.Value {
	for i, name := range d.names(v.Type()) {
		if name == embedded {
			if in := d.find(v.Field(i), is); in.IsValid() {
				return in
			}
		} else if name != "" && is(name) {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

// embedded stands for the name of a structure whose fields are the outer one's; no JSON name has a NUL.
const embedded = "\x00"

// names returns the names of a structure's fields, which cost more than all comparisons with them.
func (d *decoder) names(t reflect.Type) []string {
	for _, f := range d.fields {
		if f.of == t {
			return f.names
		}
	}
	names := make([]string, t.NumField())
	for i := range names {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && tag == "":
			names[i] = embedded
		case tag == "-" || !f.IsExported():
		case tag == "":
			names[i] = f.Name
		default:
			names[i] = tag
		}
	}
	d.fields = append(d.fields, fields{t, names})
	return names
}

// text reads a string.
func (d *decoder) text() (string, bool) {
	d.at++
	from := d.at
	for ; d.at < len(d.b); d.at++ {
		switch c := d.b[d.at]; {
		case c == '"':
			s := d.s[from:d.at]
			d.at++
			return s, utf8.ValidString(s)
		case c == '\\':
			return d.escaped(from)
		case c < ' ':
			return "", false
		}
	}
	return "", false
}

// escaped leaves a string with escapes to encoding/json, which is quick for a single one.
func (d *decoder) escaped(from int) (string, bool) {
	for ; d.at < len(d.b); d.at++ {
		switch c := d.b[d.at]; {
		case c == '\\':
			d.at++
		case c == '"':
			d.at++
			var s string
			err := json.Unmarshal(d.b[from-1:d.at], &s)
			return s, err == nil
		case c < ' ':
			return "", false
		}
	}
	return "", false
}
