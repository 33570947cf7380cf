package config

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"

	ignerrors "github.com/coreos/ignition/v2/config/shared/errors"
	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/coreos/ignition/v2/config/validate"
	vpath "github.com/coreos/vcontext/path"
	"github.com/coreos/vcontext/report"
	vvalidate "github.com/coreos/vcontext/validate"

	"github.com/proa-os/proa/ignition/butane"
)

// Upstream keeps a copy of all types for each version, parses with the one a config names, and translates from copy to copy. The versions
// differ in little, and JSON that is right for one means the same in every later one: so here all are read with the types of the newest,
// and this file is what the older ones did not have. It is a megabyte less to link. TestAgainstUpstream holds it against upstream's way.

// since is the minor version that brought a key; what is not here is in 3.0.0. An index in the path is [].
var since = map[string]int{
	"ignition.config.merge[].compression":                        1,
	"ignition.config.merge[].httpHeaders":                        1,
	"ignition.config.replace.compression":                        1,
	"ignition.config.replace.httpHeaders":                        1,
	"ignition.proxy":                                             1,
	"ignition.security.tls.certificateAuthorities[].compression": 1,
	"ignition.security.tls.certificateAuthorities[].httpHeaders": 1,
	"storage.files[].append[].httpHeaders":                       1,
	"storage.files[].contents.httpHeaders":                       1,
	"storage.filesystems[].mountOptions":                         1,
	"passwd.groups[].shouldExist":                                2,
	"passwd.users[].shouldExist":                                 2,
	"storage.disks[].partitions[].resize":                        2,
	"storage.luks":                                               2,
	"kernelArguments":                                            3,
	"storage.luks[].clevis.tang[].advertisement":                 4,
	"storage.luks[].discard":                                     4,
	"storage.luks[].openOptions":                                 4,
	"storage.luks[].cex":                                         5,
}

// Minor versions that changed what values mean.
const (
	newest           = 6
	hasSHA256        = 1
	hasGS            = 2
	hasNoFilesystem  = 3 // format "none"
	hasARN           = 4
	hasAnyPin        = 6
	hasSpecialBits   = 6
	specialBits      = 0o7000
	pinsBeforeAnyPin = "tpm2 tang sss"
)

// keys returns the keys of t at path in version 3.minor.
func keys(t reflect.Type, path string, minor int) map[string]reflect.Type {
	all := butane.Fields(t)
	if minor == newest {
		return all
	}
	path = withoutIndexes(path)
	for key := range all {
		if since[join(path, key)] > minor {
			delete(all, key)
		}
	}
	return all
}

// withoutIndexes makes storage.files[].mode of storage.files[0].mode.
func withoutIndexes(path string) string {
	var b strings.Builder
	inside := false
	for _, c := range []byte(path) {
		inside = inside && c != ']'
		if !inside {
			b.WriteByte(c)
		}
		inside = inside || c == '['
	}
	return b.String()
}

// minorOf is the minor version of a spec version this package knows.
func minorOf(version string) (int, bool) {
	for minor := range newest + 1 {
		if version == fmt.Sprintf("3.%d.0", minor) {
			return minor, true
		}
	}
	return 0, false
}

// upgrade makes cfg, written for version 3.minor, a config of the newest, and reports what that version does not allow.
func upgrade(cfg *types.Config, minor int) (r report.Report) {
	cfg.Ignition.Version = types.MaxVersion.String()
	for path, res := range resources(*cfg) {
		r.Merge(upgradeResource(contextOf(path), res, minor))
	}
	for n, f := range cfg.Storage.Filesystems {
		if minor < hasNoFilesystem && f.Format != nil && *f.Format == "none" {
			r.AddOnError(vpath.New("json", "storage", "filesystems", n, "format"), ignerrors.ErrFilesystemInvalidFormat)
		}
	}
	for n, l := range cfg.Storage.Luks {
		pin := l.Clevis.Custom.Pin
		if minor < hasAnyPin && util.NotEmpty(pin) && !strings.Contains(" "+pinsBeforeAnyPin+" ", " "+*pin+" ") {
			r.AddOnError(vpath.New("json", "storage", "luks", n, "clevis", "custom", "pin"), ignerrors.ErrUnknownClevisPin)
		}
	}
	for n := range cfg.Storage.Files {
		r.AddOnWarn(vpath.New("json", "storage", "files", n, "mode"), mask(&cfg.Storage.Files[n].Mode, minor))
	}
	for n := range cfg.Storage.Directories {
		r.AddOnWarn(vpath.New("json", "storage", "directories", n, "mode"), mask(&cfg.Storage.Directories[n].Mode, minor))
	}
	return r
}

// mask takes away the bits that older versions have ignored, so that an old config does not make programs setuid all at once.
func mask(mode **int, minor int) error {
	if minor >= hasSpecialBits || *mode == nil || **mode&specialBits == 0 {
		return nil
	}
	*mode = util.IntToPtr(**mode &^ specialBits)
	return ignerrors.ErrModeSpecialBits
}

func upgradeResource(at vpath.ContextPath, res types.Resource, minor int) (r report.Report) {
	if minor < hasSHA256 && strings.HasPrefix(deref(res.Verification.Hash), "sha256-") {
		r.AddOnError(at.Append("verification", "hash"), ignerrors.ErrHashUnrecognized)
	}
	u, err := url.Parse(deref(res.Source))
	if err != nil {
		return r // reported by validation
	}
	if minor < hasGS && u.Scheme == "gs" || minor < hasARN && u.Scheme == "arn" {
		r.AddOnError(at.Append("source"), ignerrors.ErrInvalidScheme)
	}
	return r
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// contextOf is the reverse of pathString.
func contextOf(path string) vpath.ContextPath {
	c := vpath.New("json")
	for part := range strings.SplitSeq(path, ".") {
		key, index, indexed := strings.Cut(part, "[")
		c = c.Append(key)
		var n int
		if _, err := fmt.Sscanf(index, "%d]", &n); indexed && err == nil {
			c = c.Append(n)
		}
	}
	return c
}

// validateValue is upstream's validation without its search for lines, columns and unknown keys, which walk does.
func validateValue(cfg types.Config) report.Report {
	r := vvalidate.Validate(cfg, "json")
	r.Merge(vvalidate.ValidateCustom(cfg, "json", validate.ValidateDups))
	return r
}
