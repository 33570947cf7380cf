package tuf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// canonical returns JSON in the one form that is signed (canonical JSON, wiki.laptop.org/go/Canonical_JSON): keys in order and once, no white
// space, no escapes but of " and \ (so it is not always JSON: a line's end stays one), whole numbers only.
func canonical(v any) ([]byte, error) {
	var b bytes.Buffer
	if err := encode(&b, v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func encode(b *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		fmt.Fprint(b, v)
	case string:
		quote(b, v)
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") || v.String() == "-0" {
			return fmt.Errorf("%.30s is not a whole number", v)
		}
		b.WriteString(v.String())
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := encode(b, e); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case map[string]any:
		b.WriteByte('{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b.WriteByte(',')
			}
			quote(b, k)
			b.WriteByte(':')
			if err := encode(b, v[k]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	default:
		return fmt.Errorf("no JSON value: %T", v)
	}
	return nil
}

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func quote(b *bytes.Buffer, s string) {
	b.WriteByte('"')
	_, _ = quoter.WriteString(b, s) // a buffer takes everything
	b.WriteByte('"')
}

// decode reads one JSON value and nothing behind it; numbers stay as they are written.
func decode(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("data behind the object")
	}
	return v, nil
}
