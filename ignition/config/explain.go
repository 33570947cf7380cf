package config

import (
	"encoding/json"
	"net/url"
	"strings"
)

// explain adds to an issue of upstream's validation what was expected and what to do, and the value found
// where that value is no secret.
func explain(i *Issue, path string, value json.RawMessage) {
	for _, r := range remedies {
		if i.Problem == r.err.Error() {
			i.Expected, i.Next = r.expected, r.next
		}
	}
	switch last := path[strings.LastIndexByte(path, '.')+1:]; {
	case i.Expected == anyURL && (last == "url" || last == "httpProxy" || last == "httpsProxy"):
		i.Expected = httpURL
	case i.Expected == anyURL && last == "httpHeaders":
		i.Expected, i.Next = httpURL+" as the source of what has headers", "remove httpHeaders, or correct the source"
	case i.Expected == "" && last == "source":
		i.Expected = anyURL
	case strings.Contains(i.Problem, "nstall section"):
		i.Expected, i.Next = "an [Install] section", "add WantedBy=, or start the unit from another one"
	case strings.HasPrefix(i.Problem, "invalid unit content"):
		// Unit files may hold secrets, and the parser quotes what it did not understand.
		if head, _, quoted := strings.Cut(i.Problem, `"`); quoted {
			i.Problem = strings.TrimRight(head, " :")
		}
		i.Expected = "sections in [], and KEY=VALUE lines"
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
	case isURL(path) && json.Unmarshal(value, &s) == nil:
		return Redact(s)
	}
	return ""
}

func harmless(path string) bool {
	switch path[strings.LastIndexByte(path, '.')+1:] {
	case "path", "name", "mode", "id", "hash", "compression", "target", "enabled", "mask", "overwrite", "hard", "homeDir", "shell",
		"version", "device", "format", "label", "level", "uuid", "guid", "typeGuid", "primaryGroup",
		"number", "startMiB", "sizeMiB", "devices", "spares", "pin", "thumbprint":
		return true
	}
	return false
}

func isURL(path string) bool {
	switch path[strings.LastIndexByte(path, '.')+1:] {
	case "source", "url", "httpProxy", "httpsProxy":
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
