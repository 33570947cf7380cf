package config

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/coreos/ignition/v2/config/shared/errors"
)

// explain adds to an issue of upstream's validation what was expected and what to do, and the value found
// where that value is no secret.
func explain(i *Issue, path string, value json.RawMessage) {
	set := func(expected, next string) { i.Expected, i.Next = expected, next }
	switch i.Problem {
	case errors.ErrNoPath.Error():
		set("an absolute path", `add "path"`)
	case errors.ErrPathRelative.Error():
		set("a path that begins with /", "")
	case errors.ErrDirtyPath.Error():
		set("a path without //, /./, /../ and without a / at its end", "")
	case errors.ErrDuplicate.Error():
		set("each name or path once in a config", "remove one of the two entries")
	case errors.ErrFileIllegalMode.Error():
		set("0 to 4095 (07777 in octal)", "JSON numbers are decimal: 0644 is 420")
	case errors.ErrModeSpecialBits.Error():
		set("0 to 511 (0777 in octal) before spec 3.6.0", "use spec 3.6.0 for setuid, setgid and sticky bits")
	case errors.ErrBothIDAndNameSet.Error():
		set("id or name", "remove one of them")
	case errors.ErrOverwriteAndNilSource.Error():
		set(`contents.source beside "overwrite": true`, `add a source; "data:," is an empty file`)
	case errors.ErrVerificationAndNilSource.Error():
		set("a source to verify", "add the source or remove the hash")
	case errors.ErrSourceRequired.Error():
		set("a source", `add "source"`)
	case errors.ErrInvalidScheme.Error(), errors.ErrInvalidUrl.Error():
		set("a URL of scheme data, http, https, tftp, s3, arn or gs", "")
	case errors.ErrHashMalformed.Error(), errors.ErrHashUnrecognized.Error():
		set("sha512-<hex> or sha256-<hex>", "")
	case errors.ErrHashWrongSize.Error():
		set("128 hexadecimal digits behind sha512-, 64 behind sha256-", "")
	case errors.ErrCompressionInvalid.Error():
		set(`"gzip" or nothing`, "")
	case errors.ErrInvalidSystemdExt.Error(), errors.ErrNoSystemdExt.Error():
		set("a unit name ending in .service, .socket, .mount, .timer, .target ...", "")
	case errors.ErrInvalidSystemdDropinExt.Error():
		set("a drop-in name ending in .conf", "")
	case errors.ErrPathConflictsSystemd.Error():
		set("each unit file once", "describe it under systemd.units only")
	case errors.ErrLinkTargetRequired.Error():
		set("a target", `add "target"`)
	case errors.ErrFileUsedSymlink.Error(), errors.ErrDirectoryUsedSymlink.Error(), errors.ErrLinkUsedSymlink.Error():
		set("a path that no link of this config leads through", "write the path the link leads to")
	case errors.ErrUnsupportedSchemeForHTTPHeaders.Error():
		set("headers with http and https only", "remove httpHeaders")
	default:
		// Unit files may hold secrets, and the parser quotes what it did not understand.
		if head, _, quoted := strings.Cut(i.Problem, `"`); quoted && strings.HasPrefix(head, "invalid unit content") {
			i.Problem = strings.TrimRight(head, " :")
		}
		if strings.Contains(i.Problem, "no install section") {
			set("an [Install] section", "add WantedBy=, or start the unit from another one")
		}
	}
	i.Found = reveal(path, value)
	if i.Next == "" {
		i.Next = correct
	}
}

// reveal shows a value only where the spec puts nothing secret: a list of what is harmless, so that a
// section added to the spec is hidden until somebody has looked at it.
func reveal(path string, value json.RawMessage) string {
	var s string
	switch {
	case harmless(path) && len(value) == 0:
		return "nothing"
	case harmless(path):
		return clip(string(value))
	case strings.HasSuffix(path, ".source") && json.Unmarshal(value, &s) == nil:
		return Redact(s)
	}
	return ""
}

func harmless(path string) bool {
	switch path[strings.LastIndexByte(path, '.')+1:] {
	case "path", "name", "mode", "id", "hash", "compression", "target", "enabled", "mask", "overwrite", "hard", "homeDir", "shell",
		"version", "device", "format", "label", "level", "uuid", "guid", "typeGuid", "primaryGroup":
		return true
	}
	return false
}

// Redact returns what of a source may be shown: of http and https URLs the address without user, password
// and query; of others the scheme.
func Redact(source string) string {
	u, err := url.Parse(source)
	switch {
	case err != nil:
		return "something that is no URL"
	case u.Scheme == "http" || u.Scheme == "https" || u.Scheme == "tftp" || u.Scheme == "s3" || u.Scheme == "gs":
		return clip((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String())
	case u.Scheme == "arn":
		return clip("arn:" + u.Opaque)
	case u.Scheme == "":
		return "no scheme"
	}
	return "a " + clip(u.Scheme) + ": URL"
}
