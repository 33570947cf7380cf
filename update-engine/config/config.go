// Package config is the update agent's configuration, /etc/proa/update/config.json, as the provisioner wrote it.
//
//	{
//	  "server": "https://updates.example.org/",   the repository: metadata/ and targets/ are below it; file:///... for one on a disk,
//	                                            file:///run/proa/stick for a stick labelled PROA-REPO, see package stick; oci://REGISTRY/NAME:TAG
//	                                            for one in a container registry, oci+http:// without TLS, see package artifact
//	  "mirrors": ["https://mirror.example.org/"], optional: where the same files are too, asked in this order when the server fails
//	  "ca_file": "/etc/proa/update/ca.pem",       optional: certificates in PEM that are trusted besides the system's
//	  "proxy": "http://user:pw@proxy:3128",       optional: for everything; "direct" for none; otherwise as HTTPS_PROXY says
//	  "rate_limit_bytes_per_second": 500000,      optional: how fast to download at most, on average
//	  "channel": "stable",                        optional
//	  "auto": true,                               optional: false leaves checking and applying to people (updatectl)
//	  "poll_interval_seconds": 3600,              optional: how often to look for a newer release by itself
//	  "health_deadline_seconds": 180,             optional: how long a boot may take to become healthy
//	  "required_units": ["sshd.service"],         optional: in place of the built-in list
//	  "reboot": {"strategy": "window", ...}       optional: when and how to reboot, see reboot.Config
//	}
//
// Unknown keys are errors: a misspelt one must not silently mean its default. Beside it lies root.json, the trust anchor, which the image
// may also have in /usr/share/proa/update.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/update-engine/artifact"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/reboot"
)

// Config is the parsed file.
type Config struct {
	Server                string   `json:"server"`
	Mirrors               []string `json:"mirrors"`
	CAFile                string   `json:"ca_file"`
	Proxy                 string   `json:"proxy"`
	RateLimit             int64    `json:"rate_limit_bytes_per_second"` // 0 means none
	Channel               string   `json:"channel"`
	Auto                  bool     `json:"auto"`
	PollIntervalSeconds   int      `json:"poll_interval_seconds"`
	HealthDeadlineSeconds int      `json:"health_deadline_seconds"`
	RequiredUnits         []string `json:"required_units"`

	Reboot reboot.Config `json:"reboot"`
}

// HealthDeadline is how long a boot may take to become healthy.
func (c *Config) HealthDeadline() time.Duration {
	return time.Duration(c.HealthDeadlineSeconds) * time.Second
}

// PollInterval is how often a machine looks for a newer release by itself.
func (c *Config) PollInterval() time.Duration {
	return time.Duration(c.PollIntervalSeconds) * time.Second
}

// Default is what holds without a file: no server, so no updates, but health checks.
func Default() *Config {
	return &Config{
		Channel: "stable", Auto: true, PollIntervalSeconds: 3600, HealthDeadlineSeconds: 180,
		RequiredUnits: []string{"dbus.service", "systemd-networkd.service", "sshd.service"},
		Reboot:        reboot.Default(),
	}
}

// Parse reads and checks a configuration.
func Parse(b []byte) (*Config, error) {
	c := Default()
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("data behind the object")
	}
	if err := c.checkTransport(); err != nil {
		return nil, err
	}
	if err := plan.CheckChannel(c.Channel); err != nil {
		return nil, err
	}
	if c.PollIntervalSeconds < 10*60 || c.PollIntervalSeconds > 7*24*60*60 {
		return nil, fmt.Errorf("poll_interval_seconds %d: want 600 to 604800", c.PollIntervalSeconds)
	}
	if err := c.Reboot.Check(); err != nil {
		return nil, err
	}
	if c.HealthDeadlineSeconds < 10 || c.HealthDeadlineSeconds > 24*60*60 {
		return nil, fmt.Errorf("health_deadline_seconds %d: want 10 to 86400", c.HealthDeadlineSeconds)
	}
	return c, nil
}

const (
	maxMirrors = 16
	minRate    = 16 << 10 // bytes a second: below it, a month's update would take a night
)

// checkTransport checks how the repository is reached.
func (c *Config) checkTransport() error {
	if len(c.Mirrors) > 0 && c.Server == "" {
		return errors.New("mirrors without a server: name the first of them as server")
	}
	if len(c.Mirrors) > maxMirrors {
		return fmt.Errorf("%d mirrors: want at most %d", len(c.Mirrors), maxMirrors)
	}
	for i, s := range append([]string{c.Server}, c.Mirrors...) {
		name := "server"
		if i > 0 {
			name = fmt.Sprintf("mirrors[%d]", i-1)
		}
		if err := checkServer(s); i+len(s) > 0 && err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if c.CAFile != "" && !filepath.IsAbs(c.CAFile) {
		return fmt.Errorf("ca_file %q: want an absolute path", c.CAFile)
	}
	if c.RateLimit != 0 && c.RateLimit < minRate {
		return fmt.Errorf("rate_limit_bytes_per_second %d: want 0 for no limit, or at least %d", c.RateLimit, minRate)
	}
	return checkProxy(c.Proxy)
}

func checkServer(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("it is not a URL") // the parser's error quotes it, a password included
	case u.User != nil:
		return errors.New("a repository is public, its signatures protect it: no user and password in the URL")
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%q: want no ? and no #: metadata/ and targets/ are below it", s)
	case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path):
		return nil
	case (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "":
		return nil
	case artifact.Is(s):
		a, err := artifact.Parse(s)
		if err == nil && a.File != "" {
			err = fmt.Errorf("%q: want nothing behind the tag: metadata/ and targets/ are in the artifact", s)
		}
		return err
	}
	return fmt.Errorf("%q: want an http:// or https:// URL, oci://REGISTRY/NAME:TAG, or file:///folder", s)
}

// checkProxy does not repeat the value in its error: a password may be in it.
func checkProxy(s string) error {
	if s == "" || s == "direct" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" {
		return errors.New(`proxy: want a URL such as http://proxy.example.org:3128, or "direct"`)
	}
	return nil
}

// Load reads the file; a missing one means Default.
func Load(path string) (*Config, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

// LoadAnchor reads the first of the trust anchors that exists; nil if there is none.
func LoadAnchor(paths ...string) ([]byte, error) {
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read trust anchor: %w", err)
		}
		return b, nil
	}
	return nil, nil
}
