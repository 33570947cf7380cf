package config

import (
	"fmt"
	"net/url"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"
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

// NeedsNetwork returns the place and the shown form of the first source that is not inside the config itself.
func (m *Merged) NeedsNetwork() (Place, string, bool) {
	for path, r := range resources(m.Config) {
		if remote(r) {
			return m.Place(path + ".source"), Redact(*r.Source), true
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
