package config

import (
	"fmt"
	"net/url"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/pin"
)

// resources yields every source of a config with its JSON path.
func resources(cfg types.Config) func(yield func(string, types.Resource) bool) {
	return func(yield func(string, types.Resource) bool) {
		if !yield("ignition.config.replace", cfg.Ignition.Config.Replace) {
			return
		}
		for n, r := range cfg.Ignition.Config.Merge {
			if !yield(fmt.Sprintf("ignition.config.merge[%d]", n), r) {
				return
			}
		}
		for n, r := range cfg.Ignition.Security.TLS.CertificateAuthorities {
			if !yield(fmt.Sprintf("ignition.security.tls.certificateAuthorities[%d]", n), r) {
				return
			}
		}
		for n, l := range cfg.Storage.Luks {
			if !yield(fmt.Sprintf("storage.luks[%d].keyFile", n), l.KeyFile) {
				return
			}
		}
		for n, f := range cfg.Storage.Files {
			at := fmt.Sprintf("storage.files[%d]", n)
			if !yield(at+".contents", f.Contents) {
				return
			}
			for m, r := range f.Append {
				if !yield(fmt.Sprintf("%s.append[%d]", at, m), r) {
					return
				}
			}
		}
	}
}

// NeedsNetwork returns the place and the shown form of the first source that is not inside the config itself, or of a server that
// has to be asked while the machine is provisioned.
func (m *Merged) NeedsNetwork() (Place, string, bool) {
	for path, r := range resources(m.Config) {
		if remote(r) {
			return m.Place(path + ".source"), Redact(*r.Source), true
		}
	}
	return m.needsServer()
}

// needsServer looks for volumes that are bound to a server which has to be asked for its keys.
func (m *Merged) needsServer() (Place, string, bool) {
	for n, l := range m.Config.Storage.Luks {
		at := fmt.Sprintf("storage.luks[%d].clevis", n)
		for k, t := range l.Clevis.Tang {
			if util.NilOrEmpty(t.Advertisement) {
				return m.Place(fmt.Sprintf("%s.tang[%d].url", at, k)), Redact(t.URL), true
			}
		}
		c := l.Clevis.Custom
		if util.NilOrEmpty(c.Pin) || c.Config == nil {
			continue
		}
		if p, err := pin.Parse(*c.Pin, *c.Config); err == nil && p.NeedsNetwork() || util.IsTrue(c.NeedsNetwork) {
			return m.Place(at + ".custom"), *c.Pin, true
		}
	}
	return Place{}, "", false
}

func remote(r types.Resource) bool {
	if util.NilOrEmpty(r.Source) {
		return false
	}
	u, err := url.Parse(*r.Source)
	return err != nil || u.Scheme != "data"
}
