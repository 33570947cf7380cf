package butane

import (
	"errors"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/secret"
)

// age is a key of our own variant, beside inline, local and source.
func TestAge(t *testing.T) {
	k, err := secret.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := secret.Encrypt([]byte("hunter2"), k.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	text := "          " + strings.ReplaceAll(strings.TrimSpace(sealed), "\n", "\n          ") + "\n"
	config := func(variant, version, rest string) []byte {
		return []byte("variant: " + variant + "\nversion: " + version + "\nstorage:\n  files:\n    - path: /a\n      contents:\n" + rest)
	}
	out, err := Translate(config("proa", "1.0.0", "        age: |\n"+text), nil)
	if err != nil || !strings.Contains(string(out.JSON), `"source":"data:application/age;base64,`) {
		t.Errorf("got %v", err)
	}
	for name, raw := range map[string][]byte{
		"line 7, column 14: damaged secret": config("proa", "1.0.0", "        age: hunter2\n"),
		"more than one of age":              config("proa", "1.0.0", "        inline: x\n        age: |\n"+text),
	} {
		var wrong *Error
		if _, err := Translate(raw, nil); !errors.As(err, &wrong) || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if out, err := Translate(config("fcos", "1.4.0", "        age: |\n"+text), nil); err == nil && !strings.Contains(string(out.JSON), `"age"`) {
		t.Error("fcos takes age for its own")
	}
}
