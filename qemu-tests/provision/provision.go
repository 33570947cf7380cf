// Package provision writes Ignition configs (spec 3.6.0) for the lab's machines.
//
// A story says what a machine needs in Go; what comes out is a config as a person would write it, given to the machine by
// the front door. Upstream's own parser has accepted it before the machine sees it, so that a story fails at its desk
// and not on a console. Only what the stories need is here: ssh keys, files and units; Include brings in any other config.
package provision

import (
	"encoding/json"
	"fmt"
	"io/fs"

	"github.com/coreos/ignition/v2/config/v3_6"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/vincent-petithory/dataurl"
)

// Config is an Ignition config in the making. The zero value is not usable, see New.
type Config struct{ c types.Config }

// New returns a config that asks for nothing.
func New() *Config {
	return &Config{types.Config{Ignition: types.Ignition{Version: types.MaxVersion.String()}}}
}

// SSHKey lets whoever has one of keys (authorized_keys lines) log in as user, which exists in the image or is made.
func (c *Config) SSHKey(user string, keys ...string) *Config {
	u := types.PasswdUser{Name: user}
	for _, k := range keys {
		u.SSHAuthorizedKeys = append(u.SSHAuthorizedKeys, types.SSHAuthorizedKey(k))
	}
	return c.merge(types.Config{Passwd: types.Passwd{Users: []types.PasswdUser{u}}})
}

// Hostname sets the machine's name.
func (c *Config) Hostname(name string) *Config {
	return c.File("/etc/hostname", 0o644, name+"\n")
}

// File writes a file, in place of one that the image has.
func (c *Config) File(path string, mode fs.FileMode, content string) *Config {
	overwrite, perm, source := true, int(mode.Perm()), dataurl.EncodeBytes([]byte(content))
	return c.merge(types.Config{Storage: types.Storage{Files: []types.File{{
		Node:          types.Node{Path: path, Overwrite: &overwrite},
		FileEmbedded1: types.FileEmbedded1{Mode: &perm, Contents: types.Resource{Source: &source}},
	}}}})
}

// Unit writes a systemd unit and enables it, or not.
func (c *Config) Unit(name string, enabled bool, contents string) *Config {
	return c.merge(types.Config{Systemd: types.Systemd{Units: []types.Unit{{Name: name, Enabled: &enabled, Contents: &contents}}}})
}

// KernelArguments wants words on the kernel's command line, from the first boot on.
func (c *Config) KernelArguments(words ...string) *Config {
	var a types.KernelArguments
	for _, w := range words {
		a.ShouldExist = append(a.ShouldExist, types.KernelArgument(w))
	}
	return c.merge(types.Config{KernelArguments: a})
}

// Include has the machine merge a config of its own, of any kind that it accepts.
func (c *Config) Include(text string) *Config {
	source := dataurl.EncodeBytes([]byte(text))
	return c.merge(types.Config{Ignition: types.Ignition{Config: types.IgnitionConfig{Merge: []types.Resource{{Source: &source}}}}})
}

func (c *Config) merge(child types.Config) *Config {
	child.Ignition.Version = c.c.Ignition.Version
	c.c = v3_6.Merge(c.c, child)
	return c
}

// JSON is the config, indented, without empty objects, accepted by upstream's parser.
func (c *Config) JSON() ([]byte, error) {
	b, err := json.Marshal(c.c)
	if err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	var tree map[string]any
	if err := json.Unmarshal(b, &tree); err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	prune(tree)
	if b, err = json.MarshalIndent(tree, "", "  "); err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	if _, report, err := v3_6.Parse(b); err != nil {
		return nil, fmt.Errorf("write config: %w\n%s", err, report.String())
	}
	return append(b, '\n'), nil
}

// prune removes objects without content: upstream's types write out every section.
func prune(v any) (empty bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if prune(e) {
				delete(v, k)
			}
		}
		return len(v) == 0
	case []any:
		for _, e := range v {
			prune(e)
		}
	}
	return false
}
