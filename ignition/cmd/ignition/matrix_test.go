package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_6/types"
)

// acting are the packages that do what a config says; package config only carries values.
var acting = []string{"apply", "device", "partition", "plan", "relocate", "source", "stage"}

// carried are fields that upstream's code or package config reads: the ones that lead to other fields need no reader of their own.
var carried = map[string]string{
	"Ignition.Version":       "config: which keys there are",
	"IgnitionConfig.Merge":   "config: loads and merges",
	"IgnitionConfig.Replace": "config: loads instead",
	"HTTPHeader.Value":       "source, by its own name there",
	"Config.Ignition":        "its fields",
	"Ignition.Config":        "config: its fields",
	"PasswdUser.NoLogInit":   "apply: no account that it makes gets into lastlog or faillog, which the image does not have",
	"Verification.Hash":      "source: by upstream's HashParts",
}

// TestMatrix: every field of the specification, in its newest version (which has those of all others), is read by code that acts on it or
// refuses it by name. A field that a later version of the specification adds fails here until somebody has looked at it.
func TestMatrix(t *testing.T) {
	read := readFields(t, acting)
	var fields []string
	var walk func(reflect.Type)
	walk = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return
		}
		for f := range t.Fields() {
			if name := t.Name() + "." + f.Name; !f.Anonymous && !slices.Contains(fields, name) {
				fields = append(fields, name)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[types.Config]())
	if len(fields) < 100 {
		t.Fatalf("only %d fields", len(fields))
	}
	for _, name := range fields {
		if why := carried[name]; !read[name] && why == "" {
			t.Errorf("%s is read by none of %s: apply it, or refuse it by name", name, strings.Join(acting, ", "))
		}
	}
	for name := range carried {
		if !slices.Contains(fields, name) {
			t.Errorf("%s is no field of the specification", name)
		}
	}
}

// A config with any of these is refused, and the error says which; of a pin, also why, and what there is instead.
func TestRefusedByName(t *testing.T) {
	reasons := map[string][]string{
		"storage.luks[0].clevis.tang[0]":   {"expected a thumbprint of 43 characters", `found "x"`},
		"storage.luks[0].clevis.custom":    {`pin sss: unknown pin "yubikey": expected tang, tpm2 or sss`, "sss"},
		"storage.luks[0].clevis.threshold": {"expected a threshold of 1 to the number of pins, which is 1, found 2"},
	}
	for field, text := range map[string]string{
		"storage.luks[0].clevis.tang[0]":   `"storage":{"luks":[{"name":"l","device":"/dev/vdz","clevis":{"tang":[{"url":"http://h","thumbprint":"x"}]}}]}`,
		"storage.luks[0].clevis.custom":    `"storage":{"luks":[{"name":"l","device":"/dev/vdz","clevis":{"custom":{"pin":"sss","config":"{\"pins\":{\"yubikey\":{}}}"}}}]}`,
		"storage.luks[0].clevis.threshold": `"storage":{"luks":[{"name":"l","device":"/dev/vdz","clevis":{"tpm2":true,"threshold":2}}]}`,
		"storage.luks[0].cex":              `"storage":{"luks":[{"name":"l","device":"/dev/vdz","cex":{"enabled":true}}]}`,
		"kernelArguments.shouldExist[0]":   `"kernelArguments":{"shouldExist":["proa.roothash=x"]}`,
		"storage.filesystems[0].options":   `"storage":{"filesystems":[{"device":"/dev/vdz","format":"swap","options":["--check"]}]}`,
		"storage.filesystems[0].path":      `"storage":{"filesystems":[{"device":"/dev/vdz","format":"ext4","path":"/usr"}]}`,
	} {
		name := filepath.Join(t.TempDir(), "c.ign")
		if err := os.WriteFile(name, []byte(`{"ignition":{"version":"3.6.0"},`+text+`}`), 0o644); err != nil {
			t.Fatal(err)
		}
		out, _, err := do(t, "check", name)
		if err == nil || !strings.Contains(out, "path:      "+field+"\n") {
			t.Errorf("%s: got %v\n%s", field, err, out)
		}
		for _, words := range reasons[field] {
			if !strings.Contains(out, words) {
				t.Errorf("%s: no %q in\n%s", field, words, out)
			}
		}
	}
}
