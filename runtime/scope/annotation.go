package scope

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// prefix is in front of the annotations that engines set properties of a scope with (TimeoutStopUSec, After, CollectMode ...), as
// runc and crun know them. Values are written as busctl(1) and GVariant write them.
const prefix = "org.systemd.property."

// FromAnnotations returns the properties that annotations of config.json ask for, sorted by name.
func FromAnnotations(annotations map[string]string) ([]Property, error) {
	var out []Property
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		p, err := property(name, annotations[key])
		if err != nil {
			return nil, fmt.Errorf("annotations[%q]: %w", key, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func property(name, text string) (Property, error) {
	for _, c := range []byte(name) {
		if c < '0' || c > '9' && c < 'A' || c > 'Z' && c < 'a' || c > 'z' {
			return Property{}, fmt.Errorf("%q is no name of a property", name)
		}
	}
	if len(name) < 3 {
		return Property{}, fmt.Errorf("%q is no name of a property", name)
	}
	if base, ok := strings.CutSuffix(name, "Sec"); ok && !strings.HasSuffix(base, "U") {
		// Unit files have seconds, the bus has microseconds.
		_, number, typed := strings.Cut(text, " ")
		if !typed {
			number = text
		}
		seconds, err := strconv.ParseFloat(number, 64)
		if err != nil || seconds < 0 || seconds > math.MaxInt64/1e6 {
			return Property{}, fmt.Errorf("want seconds, found %q", text)
		}
		return Property{base + "USec", uint64(seconds * 1e6)}, nil
	}
	v, err := parseValue(strings.TrimSpace(text))
	return Property{name, v}, err
}

// parseValue reads true, 'text', ['a', 'b'], 5 (an int32) and uint64 5.
func parseValue(text string) (any, error) {
	wrong := fmt.Errorf("want true, false, a number as 5 or uint64 5, 'text' or ['text', 'text'], found %q", text)
	if text == "true" || text == "false" {
		return text == "true", nil
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		list := []string{}
		for ok && strings.TrimSpace(inner) != "" {
			var s string
			if s, inner, ok = quoted(strings.TrimSpace(inner)); ok {
				list = append(list, s)
				inner = strings.TrimSpace(inner)
				rest, more := strings.CutPrefix(inner, ",")
				ok = more || inner == ""
				inner = rest
			}
		}
		if !ok {
			return nil, wrong
		}
		return list, nil
	}
	if s, rest, ok := quoted(text); ok && rest == "" {
		return s, nil
	}
	kind, number, typed := strings.Cut(text, " ")
	if !typed {
		kind, number = "int32", text
	}
	var v any
	var err error
	switch kind {
	case "int32":
		var n int64
		n, err = strconv.ParseInt(number, 10, 32)
		v = int32(n)
	case "uint32":
		var n uint64
		n, err = strconv.ParseUint(number, 10, 32)
		v = uint32(n)
	case "int64":
		v, err = strconv.ParseInt(number, 10, 64)
	case "uint64":
		v, err = strconv.ParseUint(number, 10, 64)
	default:
		err = wrong
	}
	if err != nil {
		return nil, wrong
	}
	return v, nil
}

// quoted cuts a text in single or double quotes off the front; a backslash takes the next byte as it is.
func quoted(text string) (inside, rest string, ok bool) {
	if text == "" || text[0] != '\'' && text[0] != '"' {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == text[0]:
			return b.String(), text[i+1:], true
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}
