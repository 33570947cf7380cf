// Package endpoint decides where an image is fetched from: mirrors, rewritten and blocked names, and for each place the
// credentials and certificates.
//
// It runs on the side that may read the machine's files, before the fetcher is started: the fetcher, which talks to the
// network, gets finished endpoints and reads no configuration. Nothing here talks to a network; a credential helper may.
//
//	/etc/containers/registries.conf, registries.conf.d/*.conf   mirrors, insecure, blocked: containers-registries.conf(5), version 2
//	/etc/proa/auth.json, ~/.docker/config.json                  credentials: docker's config.json, with credHelpers and credsStore
//	/etc/containers/certs.d/<host:port>/                        *.crt: authorities to trust as well; client.cert, client.key
//
// Subset of registries.conf: [[registry]] with prefix, location, insecure, blocked, mirror-by-digest-only, and
// [[registry.mirror]] with location, insecure, pull-from-mirror. Keys for names without a registry are read and have no
// meaning here (such a name is docker.io's, as docker has it). Any other key is an error that names it.
package endpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/proa-os/proa/runtime/ref"
)

// An Endpoint is one place an image may be at, with all that is needed to ask there.
type Endpoint struct {
	Name     string `json:"name"` // host[:port]/repository
	Insecure bool   `json:"insecure,omitempty"`
	Mirror   bool   `json:"mirror,omitempty"` // others follow
	Tags     bool   `json:"tags"`             // may be asked for tags
	Digests  bool   `json:"digests"`          // may be asked for digests
	Auth     Auth   `json:"auth"`
	CA       []byte `json:"ca,omitempty"`   // PEM, besides the system's
	Cert     []byte `json:"cert,omitempty"` // PEM, of the client
	Key      []byte `json:"key,omitempty"`
}

// Auth is a credential; the zero value is none.
type Auth struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	Token    string `json:"token,omitempty"` // identity token (OAuth2 refresh token)
}

// Config names the files.
type Config struct {
	Registries string   // registries.conf; beside it registries.conf.d
	Auth       []string // files of credentials, the first that has one counts
	Certs      []string // directories of <host:port>/
}

// Machine is the configuration of a Proa machine; home is the user's.
func Machine(home string) Config {
	c := Config{Registries: "/etc/containers/registries.conf", Auth: []string{LoginFile}, Certs: []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}}
	if f := os.Getenv("REGISTRY_AUTH_FILE"); f != "" {
		c.Auth = []string{f}
	}
	if home != "" {
		c.Auth = append(c.Auth, filepath.Join(home, ".docker/config.json"))
	}
	return c
}

// LoginFile is where login keeps credentials.
const LoginFile = "/etc/proa/auth.json"

// registry is [[registry]] of registries.conf.
type registry struct {
	Prefix   string   `toml:"prefix"`
	Location string   `toml:"location"`
	Insecure bool     `toml:"insecure"`
	Blocked  bool     `toml:"blocked"`
	ByDigest bool     `toml:"mirror-by-digest-only"`
	Mirrors  []mirror `toml:"mirror"`
}

type mirror struct {
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
	From     string `toml:"pull-from-mirror"` // all, digest-only, tag-only
}

// conf is the whole file.
type conf struct {
	Registry    []registry        `toml:"registry"`
	Unqualified []string          `toml:"unqualified-search-registries"`
	ShortNames  string            `toml:"short-name-mode"`
	Aliases     map[string]string `toml:"aliases"`
	Helpers     []string          `toml:"credential-helpers"`
}

// For returns the places to ask for an image, in order. With insecure all of them may be asked without TLS.
func (c Config) For(r ref.Ref, insecure bool) ([]Endpoint, error) {
	rules, err := c.read()
	if err != nil {
		return nil, err
	}
	name := r.Repository()
	var list []Endpoint
	own := Endpoint{Name: name, Insecure: insecure, Tags: true, Digests: true}
	if rule := match(rules, name); rule != nil {
		if rule.Blocked {
			return nil, fmt.Errorf("%s: blocked by %s (prefix %s)", r, c.Registries, rule.Prefix)
		}
		for _, m := range rule.Mirrors {
			list = append(list, Endpoint{Name: rewrite(name, rule.Prefix, m.Location), Insecure: insecure || m.Insecure, Mirror: true,
				Tags: m.From != "digest-only" && !rule.ByDigest, Digests: m.From != "tag-only"})
		}
		own.Name, own.Insecure = rewrite(name, rule.Prefix, rule.Location), insecure || rule.Insecure
	}
	list = append(list, own)
	for i := range list {
		if err := c.equip(&list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// equip adds credentials and certificates.
func (c Config) equip(e *Endpoint) (err error) {
	if e.Auth, err = c.credential(e.Name); err != nil {
		return err
	}
	host, _, _ := strings.Cut(e.Name, "/")
	for _, dir := range c.Certs {
		dir = filepath.Join(dir, host)
		authorities, err := filepath.Glob(filepath.Join(globEscape(dir), "*.crt"))
		if err != nil {
			return err
		}
		for _, f := range authorities {
			b, err := os.ReadFile(f)
			if err != nil {
				return fmt.Errorf("read certificate: %w", err)
			}
			e.CA = append(append(e.CA, b...), '\n')
		}
		cert, err := os.ReadFile(filepath.Join(dir, "client.cert"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			e.Cert = cert
			e.Key, err = os.ReadFile(filepath.Join(dir, "client.key"))
		}
		if err != nil {
			return fmt.Errorf("read client certificate: %w", err)
		}
	}
	return nil
}

func globEscape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}

// read reads registries.conf and what lies in registries.conf.d, which counts more, the last file most.
func (c Config) read() ([]registry, error) {
	files, err := filepath.Glob(filepath.Join(globEscape(c.Registries+".d"), "*.conf"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	rules := make(map[string]registry)
	for _, f := range append([]string{c.Registries}, files...) {
		b, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read registries: %w", err)
		}
		list, err := parse(string(b))
		if err != nil {
			return nil, fmt.Errorf("read registries: %s: %w", f, err)
		}
		for _, r := range list {
			rules[r.Prefix] = r
		}
	}
	out := make([]registry, 0, len(rules))
	for _, r := range rules {
		out = append(out, r)
	}
	return out, nil
}

func parse(text string) ([]registry, error) {
	var f conf
	meta, err := toml.Decode(text, &f)
	if err != nil {
		return nil, err
	}
	if keys := meta.Undecoded(); len(keys) > 0 {
		return nil, fmt.Errorf("unknown key %s", keys[0])
	}
	seen := make(map[string]bool)
	for i := range f.Registry {
		r := &f.Registry[i]
		if r.Prefix == "" {
			r.Prefix = r.Location
		}
		if r.Location == "" && !strings.HasPrefix(r.Prefix, "*.") {
			r.Location = r.Prefix
		}
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("registry %q: %w", r.Prefix, err)
		}
		if seen[r.Prefix] {
			return nil, fmt.Errorf("registry %q: stands there twice", r.Prefix)
		}
		seen[r.Prefix] = true
	}
	return f.Registry, nil
}

func (r *registry) check() error {
	if r.Prefix == "" {
		return errors.New("neither prefix nor location")
	}
	for _, m := range r.Mirrors {
		switch {
		case m.Location == "":
			return errors.New("a mirror without location")
		case m.From != "" && m.From != "all" && m.From != "digest-only" && m.From != "tag-only":
			return fmt.Errorf("pull-from-mirror %q: want all, digest-only or tag-only", m.From)
		}
	}
	for _, l := range append([]mirror{{Location: r.Location}}, r.Mirrors...) {
		if strings.Contains(l.Location, "://") || strings.HasSuffix(l.Location, "/") {
			return fmt.Errorf("location %q: want host[:port][/path]", l.Location)
		}
	}
	return nil
}

// match returns the rule with the longest prefix.
func match(rules []registry, name string) *registry {
	var found *registry
	for i, r := range rules {
		if !covers(r.Prefix, name) {
			continue
		}
		if found == nil || len(r.Prefix) > len(found.Prefix) {
			found = &rules[i]
		}
	}
	return found
}

// covers reports whether a prefix covers a repository: up to an element's end, or "*.example.org" any host below.
func covers(prefix, name string) bool {
	if suffix, ok := strings.CutPrefix(prefix, "*"); ok && strings.HasPrefix(suffix, ".") {
		host, _, _ := strings.Cut(name, "/")
		host, _, _ = strings.Cut(host, ":")
		return strings.HasSuffix(host, suffix)
	}
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

func rewrite(name, prefix, location string) string {
	if location == "" || strings.HasPrefix(prefix, "*.") {
		if location == "" {
			return name
		}
		_, rest, _ := strings.Cut(name, "/")
		return path.Join(location, rest)
	}
	return location + strings.TrimPrefix(name, prefix)
}
