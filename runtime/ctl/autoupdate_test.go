package ctl

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// declaredUpdated: an image that works is taken, one that does not start is not.
func (m *machine) declaredUpdated(t *testing.T) {
	line := append(declare("--sdnotify", "container", "--label", autoUpdateLabel+"=registry"), m.image())
	text := "[Service]\nExecStart=/usr/bin/containerctl"
	for _, w := range line {
		text += " " + w
	}
	unitFile := filepath.Join(m.dir, "units/web.service")
	defer os.Remove(unitFile)
	for name, text := range map[string]string{unitFile: text + "\n", filepath.Join(m.dir, "registries.conf"): fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", m.reg.Addr)} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m.must(line...)
	update := func(want string, code int) {
		t.Helper()
		out, errs, got := m.ctl("auto-update", "--json")
		var list []updated
		if err := json.Unmarshal([]byte(out), &list); err != nil || got != code || len(list) != 1 || list[0].Updated != want || list[0].Unit != "web.service" {
			t.Errorf("exit %d: %s%s, %v; want %s", got, out, errs, err, want)
		}
	}
	update("false", 0)
	m.pushProbe("KEY=newer", "ready", "x")
	update("true", 0)
	if out := m.must("exec", "systemd-web", "/probe", "say", "x"); out != "x systemd-web 0 newer\n" {
		t.Errorf("got %q", out)
	}
	m.pushProbe("KEY=broken", "ready", "never")
	update("rolled back", 1)
	if out := m.must("exec", "systemd-web", "/probe", "say", "x"); out != "x systemd-web 0 newer\n" {
		t.Errorf("got %q", out)
	}
	m.must("declared-stop", "systemd-web")
	if out := m.must("auto-update", "--json"); out != "[]\n" {
		t.Errorf("of a stopped one: %s", out)
	}
}
