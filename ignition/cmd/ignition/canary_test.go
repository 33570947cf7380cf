package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/config"
)

// canary stands for every secret. It is in the config below in each field that may hold one, plain and as base64 has it.
const canary = "c4n4ry-0f-s3cr3t"

// secrets is a config with the canary wherever a person might put a secret.
func secrets() string {
	b64 := base64.StdEncoding.EncodeToString([]byte(canary))
	return strings.NewReplacer("CANARY64", b64, "CANARY", canary).Replace(`{
 "ignition": {"version": "3.6.0",
  "proxy": {"httpProxy": "http://u:CANARY@proxy.example.com", "httpsProxy": "http://u:CANARY@proxy.example.com"},
  "security": {"tls": {"certificateAuthorities": [{"source": "data:;base64,CANARY64", "httpHeaders": []}]}}},
 "passwd": {"users": [{"name": "a", "passwordHash": "CANARY", "gecos": "g", "sshAuthorizedKeys": ["ssh-rsa CANARY"]}], "groups": [{"name": "g", "passwordHash": "CANARY"}]},
 "storage": {
  "luks": [{"name": "l", "device": "/dev/vdz", "keyFile": {"source": "data:,CANARY"}, "options": ["--x=CANARY"], "clevis": {"custom": {"pin": "p", "config": "CANARY", "needsNetwork": true}}}],
  "files": [
   {"path": "/a", "mode": 384, "contents": {"source": "data:;base64,CANARY64", "compression": "", "verification": {"hash": "sha256-0000000000000000000000000000000000000000000000000000000000000000"}}, "append": [{"source": "data:,CANARY"}]},
   {"path": "/b", "contents": {"source": "https://u:CANARY@h.example.com/x?token=CANARY#CANARY", "httpHeaders": [{"name": "Authorization", "value": "CANARY"}]}},
   {"path": "/c", "contents": {"source": "data:application/age,CANARY"}}]},
 "systemd": {"units": [{"name": "a.service", "contents": "[Service]\nEnvironment=K=CANARY", "dropins": [{"name": "d.conf", "contents": "[Service]\nX=CANARY"}]}]}}`)
}

// leaves calls visit with every value in v, and a way to put something else there.
func leaves(v any, path string, set func(any), visit func(path string, v any, set func(any))) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			leaves(v[k], path+"."+k, func(x any) { v[k] = x }, visit)
		}
	case []any:
		for n, e := range v {
			leaves(e, fmt.Sprintf("%s[%d]", path, n), func(x any) { v[n] = x }, visit)
		}
	}
	visit(path, v, set)
}

// whole fails if anything that a command has found lacks what a person needs: which config, where in it, what is wrong, what to do.
func whole(t *testing.T, what, command, out string, err error) {
	t.Helper()
	var all []checked
	if command == "check" && json.Unmarshal([]byte(out), &all) != nil {
		t.Fatalf("%s: check: %v, no answer in\n%s", what, err, out)
	}
	var issues config.Issues
	if errors.As(err, &issues) {
		all = append(all, checked{Findings: findings(issues)})
	} else if command == "apply" && err != nil {
		t.Errorf("%s: apply: an error without a place: %v", what, err)
	}
	for _, one := range all {
		for _, f := range one.Findings {
			if f.Config == "" || f.Problem == "" || f.Next == "" || f.Path != "" && f.Line == 0 {
				t.Errorf("%s: %s: want config, line, problem and next step, got %+v", what, command, f)
			}
		}
	}
}

// Whatever is wrong with a config, no error, warning or log shows a secret of it, and each says where it is and what to do.
func TestNoSecretIsShown(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "c.ign")
	root := filepath.Join(dir, "root")
	var hidden = []string{canary, base64.StdEncoding.EncodeToString([]byte(canary))}
	failed, runs := 0, 0
	try := func(what string, raw []byte) {
		t.Helper()
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(root+"/etc", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"check", "--offline", "--json", name}, {"apply", "--offline", "--root", root, name}} {
			out, log, err := do(t, args...)
			runs++
			if err != nil {
				failed++
				log += err.Error()
			}
			whole(t, what, args[0], out, err)
			for _, h := range hidden {
				if strings.Contains(out+log, h) {
					t.Errorf("%s: ignition %s shows the secret:\n%s%s", what, args[0], out, log)
				}
			}
		}
	}
	text := secrets()
	try("nothing changed", []byte(text))
	wrong := []any{7.5, true, nil, "", "wrong", "/x y", map[string]any{"x": 1}, []any{"x"}}
	// What stands where a secret is, and is wrong there.
	sealed := []any{canary, "http://u:" + canary + "@h/?" + canary, "ftp://" + canary, "data:;base64," + canary, "data:" + canary, "[Unit " + canary, "[Unit]\n" + canary, []any{canary}, "x:" + canary + "\n" + canary, "%" + canary}
	var count int
	var probe any
	if err := json.Unmarshal([]byte(text), &probe); err != nil {
		t.Fatal(err)
	}
	leaves(probe, "", func(any) {}, func(string, any, func(any)) { count++ })
	for leaf := range count {
		for m, mutation := range append(slices.Clone(wrong), sealed...) {
			if m < len(wrong) && (leaf+m)%4 != 0 && os.Getenv("PROA_DEEP") == "" { // a quarter of what holds no secret itself
				continue
			}
			var doc any
			if err := json.Unmarshal([]byte(text), &doc); err != nil {
				t.Fatal(err)
			}
			at, n := "", 0
			leaves(doc, "", func(x any) { doc = x }, func(path string, v any, set func(any)) {
				text, _ := v.(string)
				secret := strings.Contains(text, canary) || strings.Contains(text, hidden[1])
				if n++; n == leaf+1 && (m < len(wrong) || secret) {
					at = path
					set(mutation)
				}
			})
			if at == "" && leaf < count-1 {
				continue
			}
			raw, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			try(fmt.Sprintf("%s = %v", at, mutation), raw)
		}
	}
	for cut := 0; cut < len(text); cut += 41 {
		try(fmt.Sprintf("cut off after %d bytes", cut), []byte(text[:cut]))
	}
	if failed < runs/3 {
		t.Errorf("%d of %d runs failed: the configs are not wrong enough", failed, runs)
	}
}
