package config

import (
	"encoding/json"

	"github.com/coreos/ignition/v2/config/v3_6/types"
)

// Beneath merges m over base: what m says wins. The error is of type Issues.
func Beneath(base, m *Merged) (*Merged, error) {
	both := mergePlaced(base, m)
	both.Origins = append(append([]Origin{}, m.Origins...), base.Origins...)
	both.Warnings = append(append(Issues{}, m.Warnings...), base.Warnings...)
	if err := both.validate(); err != nil {
		return nil, err
	}
	return both, nil
}

// Metadata is the config of what a platform knows about its machine: its name, and the keys of those who may log in as user. It goes
// beneath the machine's own config. name is what errors call it.
func Metadata(name, user, hostname string, keys []string) (*Merged, error) {
	cfg := types.Config{Ignition: types.Ignition{Version: types.MaxVersion.String()}}
	if hostname != "" {
		source, mode, overwrite := "data:,"+hostname, 0o644, true
		cfg.Storage.Files = []types.File{{
			Node:          types.Node{Path: "/etc/hostname", Overwrite: &overwrite},
			FileEmbedded1: types.FileEmbedded1{Mode: &mode, Contents: types.Resource{Source: &source}},
		}}
	}
	if len(keys) > 0 {
		u := types.PasswdUser{Name: user}
		for _, k := range keys {
			u.SSHAuthorizedKeys = append(u.SSHAuthorizedKeys, types.SSHAuthorizedKey(k))
		}
		cfg.Passwd.Users = []types.PasswdUser{u}
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	d, err := Parse(name, raw)
	if err != nil {
		return nil, err
	}
	for path, at := range d.places { // nobody has written these lines
		at.Line, at.Column = 0, 0
		d.places[path] = at
	}
	return &Merged{Config: d.Config, Places: d.places, Origins: []Origin{originOf(name, raw)}}, nil
}
