package platform

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"net/textproto"
	"sort"
	"strconv"
	"strings"
	"unicode"
)

// hostname returns the machine's name according to the platform.
func (s *session) hostname(ctx context.Context, o origin) (string, []string) {
	values, err := s.values(ctx, o, o.hostname)
	if err != nil {
		return "", []string{"read hostname: " + err.Error()}
	}
	if len(values) == 0 {
		return "", nil
	}
	name := values[0]
	if len(name) > 64 { // HOST_NAME_MAX: the name alone is better than none
		name, _, _ = strings.Cut(name, ".")
	}
	if !validName(name) {
		return "", []string{fmt.Sprintf("read hostname: expected 1 to 64 letters, digits, - and ., found %.80q", name)}
	}
	return name, nil
}

func validName(s string) bool {
	if len(s) > 64 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool {
			return r > unicode.MaxASCII || r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
		}) {
			return false
		}
	}
	return true
}

// keys returns the ssh keys that the platform has for the machine, each once.
func (s *session) keys(ctx context.Context, o origin) (keys, warnings []string) {
	values, err := s.values(ctx, o, o.keys)
	if err != nil {
		return nil, []string{"read ssh keys: " + err.Error()}
	}
	seen := map[string]bool{}
	for _, v := range values {
		for line := range strings.Lines(v) {
			line = strings.TrimSpace(line)
			switch {
			case line == "" || line[0] == '#' || seen[line]:
			case len(strings.Fields(line)) < 2 || strings.ContainsFunc(line, unicode.IsControl):
				warnings = append(warnings, "read ssh keys: expected a line of authorized_keys, found something else")
			default:
				seen[line] = true
				keys = append(keys, line)
			}
		}
	}
	return keys, warnings
}

// values reads a piece of metadata; there may be none.
func (s *session) values(ctx context.Context, o origin, i item) ([]string, error) {
	if i.path == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, metadataTotal)
	defer cancel()
	at := o.at
	if o.facts != nil {
		at = o.facts
	}
	get := func(path string) ([]byte, error) { return at.get(ctx, s, path) }
	raw, err := get(i.path)
	if errors.Is(err, fs.ErrNotExist) && !i.always {
		return nil, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return i.as(get, raw)
}

// lines is text: a hostname, or authorized_keys.
func lines(_ func(string) ([]byte, error), raw []byte) (all []string, err error) {
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all, nil
}

// jsonAt picks the strings at a path of keys; "*" is every element of a list or object, in the order of the keys.
func jsonAt(path string) reading {
	return func(_ func(string) ([]byte, error), raw []byte) ([]string, error) {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, errors.New("expected JSON, found something else")
		}
		return pick(v, strings.Split(path, ".")), nil
	}
}

func pick(v any, path []string) (all []string) {
	if s, ok := v.(string); ok && len(path) == 0 {
		return []string{s}
	}
	if len(path) == 0 {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		names := []string{path[0]}
		if path[0] == "*" {
			names = names[:0]
			for n := range v {
				names = append(names, n)
			}
			sort.Strings(names)
		}
		for _, n := range names {
			all = append(all, pick(v[n], path[1:])...)
		}
	case []any:
		if path[0] == "*" {
			for _, e := range v {
				all = append(all, pick(e, path[1:])...)
			}
		}
	}
	return all
}

// jsonOr is jsonAt where the text is a JSON object, as of KubeVirt, and other where it is not.
func jsonOr(path string, other reading) reading {
	return func(get func(string) ([]byte, error), raw []byte) ([]string, error) {
		if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
			return jsonAt(path)(get, raw)
		}
		return other(get, raw)
	}
}

// yamlValue picks the value, or the list of values, of a key at the top of the simple YAML that hypervisors write: one "key: value" a
// line, lists as "- value" lines, either folded into indented lines. Quotes around a value are taken off.
func yamlValue(key string) reading {
	return func(_ func(string) ([]byte, error), raw []byte) (all []string, err error) {
		in := false
		for line := range strings.Lines(string(raw)) {
			text := strings.TrimSpace(line)
			v, isItem := strings.CutPrefix(text, "- ")
			switch {
			case in && isItem:
				all = append(all, unquoted(v))
			case text == "" || text[0] == '#':
			case line[0] == ' ':
				if in && len(all) > 0 {
					all[len(all)-1] += " " + unquoted(text)
				}
			default:
				var name string
				name, v, _ = strings.Cut(text, ":")
				in = strings.Trim(name, `"'`) == key
				if v = unquoted(v); in && v != "" {
					all = append(all, v)
				}
			}
		}
		return all, nil
	}
}

func unquoted(s string) string { return strings.Trim(strings.TrimSpace(s), `"'`) }

// cloudConfigs reads every part of a MIME message that is cloud-config, as IBM Cloud's vendor data is. The message may end without its last
// boundary.
func cloudConfigs(as reading) reading {
	wrong := errors.New("expected a MIME message of several parts, found something else")
	return func(get func(string) ([]byte, error), raw []byte) (all []string, err error) {
		message := textproto.NewReader(bufio.NewReader(bytes.NewReader(raw)))
		header, err := message.ReadMIMEHeader()
		if err != nil {
			return nil, wrong
		}
		_, words, err := mime.ParseMediaType(header.Get("Content-Type"))
		if err != nil || words["boundary"] == "" {
			return nil, wrong
		}
		parts := multipart.NewReader(message.R, words["boundary"])
		for {
			part, err := parts.NextPart()
			if errors.Is(err, io.EOF) {
				return all, nil
			}
			if err != nil {
				return nil, wrong
			}
			text, err := io.ReadAll(part)
			if err != nil {
				return nil, wrong
			}
			if kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type")); kind != "text/cloud-config" {
				continue
			}
			if strings.EqualFold(part.Header.Get("Content-Transfer-Encoding"), "base64") {
				if text, err = fromBase64(text); err != nil {
					return nil, err
				}
			}
			values, err := as(get, text)
			if err != nil {
				return nil, err
			}
			all = append(all, values...)
		}
	}
}

// indexed is EC2's list of keys: "0=name" lines, each key at its number.
func indexed(get func(string) ([]byte, error), raw []byte) (all []string, err error) {
	list, err := lines(nil, raw)
	if err != nil {
		return nil, err
	}
	for _, line := range list {
		number, _, _ := strings.Cut(line, "=")
		number = strings.TrimSuffix(number, "/")
		if _, err := strconv.Atoi(number); err != nil {
			return nil, errors.New("expected a list of numbered keys, found something else")
		}
		key, err := get(keysDirectory + number + "/openssh-key")
		if err != nil {
			return nil, err
		}
		all = append(all, string(key))
	}
	return all, nil
}

// keysDirectory is where EC2 and those who imitate it keep keys.
const keysDirectory = "/latest/meta-data/public-keys/"

// googleKeys are "user:key" lines of the instance and, unless it says no, of its project. Keys that Google adds for a few minutes are
// left out: here they would stay.
func googleKeys(get func(string) ([]byte, error), raw []byte) (all []string, err error) {
	const attributes = "/computeMetadata/v1/instance/attributes/"
	block, err := get(attributes + "block-project-ssh-keys")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	texts := [][]byte{raw}
	if !strings.EqualFold(strings.TrimSpace(string(block)), "true") {
		project, err := get("/computeMetadata/v1/project/attributes/ssh-keys")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		texts = append(texts, project)
	}
	for _, text := range texts {
		list, err := lines(nil, text)
		if err != nil {
			return nil, err
		}
		for _, line := range list {
			if _, key, ok := strings.Cut(line, ":"); ok && !strings.Contains(key, `"expireOn"`) {
				all = append(all, key)
			}
		}
	}
	return all, nil
}

// fromBase64 takes line breaks as they come.
func fromBase64(raw []byte) ([]byte, error) {
	text := strings.Join(strings.Fields(string(raw)), "")
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("expected base64, found something else")
	}
	return b, nil
}
