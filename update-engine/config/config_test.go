package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	c, err := Parse([]byte(`{"server":"http://10.0.2.2:8080/","channel":"beta"}`))
	if err != nil || c.Server != "http://10.0.2.2:8080/" || c.Channel != "beta" || c.HealthDeadline() != 3*time.Minute || !c.Auto || c.PollInterval() != time.Hour || len(c.RequiredUnits) == 0 {
		t.Errorf("got %+v, %v", c, err)
	}
	if c, err := Parse([]byte(`{"auto":false,"poll_interval_seconds":600}`)); err != nil || c.Auto || c.PollInterval() != 10*time.Minute {
		t.Errorf("got %+v, %v", c, err)
	}
	if c, err := Parse([]byte(`{"reboot":{"mode":"full"}}`)); err != nil || c.Reboot.Mode != "full" || c.Reboot.Strategy != "immediate" || c.Reboot.MaxDelay == 0 {
		t.Errorf("got %+v, %v, want the other defaults", c, err)
	}
	for in, want := range map[string]string{
		`{"reboot":{"windows":[{"start":"3"}],"strategy":"window"}}`: `start "3"`,
		`{"reboot":{"when":"now"}}`:                                  `unknown field "when"`,
		`{"reboot":{"max_delay":3}}`:                                 `want a text`,
		`{"sever":"http://x/"}`:                                      `unknown field "sever"`,
		`{"server":"ftp://x/"}`:                                      "want an http",
		`{"server":"/srv"}`:                                          "want an http",
		`{"server":"oci://registry.example.org/updates"}`:            "want oci://REGISTRY/NAME:TAG",
		`{"server":"oci://registry.example.org/updates:latest/x"}`:   "want nothing behind the tag",
		`{"channel":"../x"}`:                                         "channel",
		`{"health_deadline_seconds":1}`:                              "want 10 to",
		`{"poll_interval_seconds":599}`:                              "want 600 to",
		`{"server":"http://x/"} {}`:                                  "behind the object",
		`{"server":"http://x/"`:                                      "unexpected EOF",
		`[]`:                                                         "cannot unmarshal",
		`{"required_units":"sshd.service"}`:                          "cannot unmarshal",
	} {
		if _, err := Parse([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", in, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "cret") {
			t.Errorf("%s: the error tells the password: %v", in, err)
		}
	}
}

func TestTransport(t *testing.T) {
	c, err := Parse([]byte(`{"server":"file:///srv/repo","mirrors":["https://y/","http://z:8080/a"],"ca_file":"/etc/ca.pem",
		"proxy":"http://u:p@proxy:3128","rate_limit_bytes_per_second":500000}`))
	if err != nil || c.Server != "file:///srv/repo" || len(c.Mirrors) != 2 || c.CAFile != "/etc/ca.pem" || c.Proxy != "http://u:p@proxy:3128" || c.RateLimit != 500000 {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, in := range []string{`{"proxy":"direct"}`, `{"proxy":"socks5://proxy:1080"}`, `{"rate_limit_bytes_per_second":0}`, `{}`} {
		if _, err := Parse([]byte(in)); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "config.json")
	if c, err := Load(name); err != nil || c.Server != "" || c.Channel != "stable" {
		t.Errorf("no file: %+v, %v", c, err)
	}
	if err := os.WriteFile(name, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("damaged: %v", err)
	}
	if b, err := LoadAnchor(filepath.Join(dir, "none"), name); err != nil || string(b) != "{" {
		t.Errorf("anchor: %q, %v", b, err)
	}
	if b, err := LoadAnchor(filepath.Join(dir, "none")); err != nil || b != nil {
		t.Errorf("no anchor: %q, %v", b, err)
	}
}
