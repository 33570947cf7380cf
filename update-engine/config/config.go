// Package config is the update agent's configuration, /etc/proa/update/config.json, as the provisioner wrote it.
//
//	{
//	  "server": "https://updates.example.org/",   the repository: metadata/ and targets/ are below it
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
	"time"

	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/reboot"
)

// Config is the parsed file.
type Config struct {
	Server                string   `json:"server"`
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
	if c.Server != "" {
		u, err := url.Parse(c.Server)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("server %q: want an http:// or https:// URL", c.Server)
		}
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
