package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Every kind of value where every other kind belongs: both kinds are named, and the value itself, in JSON and in YAML. Of an object the kind
// alone: what is in it may be secret.
func TestWrongTypes(t *testing.T) {
	found := []struct{ json, kind string }{
		{`"text"`, "a string"}, {`7.5`, "a number"}, {`true`, "a boolean"}, {`["text"]`, "a list"}, {`{"x":7}`, "an object"},
	}
	for key, expected := range map[string]string{
		"storage.files[0].path": "a string", "storage.files[0].mode": "an integer", "storage.files[0].overwrite": "true or false",
		"systemd.units[0].name": "a string", "storage.disks[0].partitions[0].number": "an integer",
	} {
		for _, f := range found {
			if f.kind == expected || f.kind == "a boolean" && expected == "true or false" {
				continue
			}
			for _, kind := range []string{"JSON", "YAML"} {
				if plain := f.kind == "a number" || f.kind == "a boolean"; kind == "YAML" && plain && (expected == "a string" || f.kind == "a number") {
					continue // the specification has no fractions, and YAML's plain text is text where text belongs
				}
				t.Run(key+" "+f.kind+" "+kind, func(t *testing.T) {
					want := fmt.Sprintf("wrong type: expected %s, found %s, %s; write ", expected, f.kind, f.json)
					if f.kind == "an object" {
						want = fmt.Sprintf("wrong type: expected %s, found an object; write ", expected)
					}
					issue := wrongAt(t, kind, key, f.json)
					if got := issue.Text(); !strings.HasPrefix(got, want) {
						t.Errorf("got  %s\nwant %s...", got, want)
					}
					if issue.Path != key || issue.Line == 0 {
						t.Errorf("got place %s, want %s with its line", issue.Place, key)
					}
				})
			}
		}
	}
}

// Where a secret belongs, or may belong, the kind is all that is shown. A number can be one as well.
func TestWrongTypesShowNoSecret(t *testing.T) {
	for _, key := range []string{"passwd.users[0].passwordHash", "passwd.users[0].sshAuthorizedKeys", "storage.files[0].contents", "storage.files[0].contents.source", "systemd.units[0].contents", "passwd.users[0].gecos", "storage.luks[0].options"} {
		for _, value := range []string{`4711815`, `"4711815"`, `["4711815", 4711815, {}]`, `{"4711815x": 4711815}`} {
			raw := document(key, value)
			_, err := Parse("c.ign", []byte(raw))
			var issues Issues
			if err == nil || !errors.As(err, &issues) {
				continue // it may be right there
			}
			for _, i := range issues {
				if i.Problem == "wrong type" && strings.Contains(i.Error(), "4711815") {
					t.Errorf("%s: a secret is shown: %s", raw, i)
				}
			}
		}
	}
}

// wrongAt is what is wrong with a config that has value at a path.
func wrongAt(t *testing.T, kind, path, value string) Issue {
	t.Helper()
	raw, name := document(path, value), "c.ign"
	if kind == "YAML" {
		_, rest, _ := strings.Cut(raw, ",\n")
		raw, name = "variant: proa\nversion: 1.0.0\n"+strings.TrimSuffix(rest, "}"), "c.bu"
	}
	_, err := Parse(name, []byte(raw))
	var issues Issues
	if !errors.As(err, &issues) || len(issues) != 1 {
		t.Fatalf("%s: got %v, want one issue", raw, err)
	}
	return issues[0]
}

// document is a config with a value at a path.
func document(path, value string) string {
	words := strings.Split(path, ".")
	for n := len(words) - 1; n >= 0; n-- {
		word, list := strings.CutSuffix(words[n], "[0]")
		if list {
			value = "[" + value + "]"
		}
		value = fmt.Sprintf("{%q: %s}", word, value)
	}
	return "{\"ignition\": {\"version\": \"3.6.0\"},\n" + value[1:]
}
