package archive

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/proa-os/proa/image-builder/deb"
)

// ID names one of Debian's archives, whatever mirror serves it.
type ID string

// The two archives that a stable Debian consists of.
const (
	Main     ID = "main"
	Security ID = "security"
)

// Of returns the archive that a suite lives in: trixie-security in Security, all others in Main.
func Of(suite string) ID {
	if strings.HasSuffix(suite, "-security") {
		return Security
	}
	return Main
}

// Mirrors holds the base URL of each archive, the directory that contains dists/ and pool/.
type Mirrors struct {
	Main     string
	Security string
}

const (
	mainDir     = "/debian"
	securityDir = "/debian-security"
)

// FindMirrors returns the mirrors of the first of its arguments that names one: flag, manifest, or the host's apt
// configuration (a file system that holds sources.list and sources.list.d, normally /etc/apt). If only the main
// archive is known, and its URL ends in /debian, the security archive is taken to be its neighbour /debian-security.
func FindMirrors(flag, manifest Mirrors, apt fs.FS) (Mirrors, error) {
	for _, m := range []Mirrors{flag, manifest} {
		if m != (Mirrors{}) {
			return m.complete()
		}
	}
	m, err := hostMirrors(apt)
	if err != nil {
		return Mirrors{}, err
	}
	if m.Main == "" {
		return Mirrors{}, errors.New("find mirror: this host's apt sources name no Debian mirror (a URI that ends in /debian); " +
			"pass --mirror URL or set mirror in the manifest")
	}
	return m.complete()
}

func (m Mirrors) complete() (Mirrors, error) {
	m.Main, m.Security = strings.TrimRight(m.Main, "/"), strings.TrimRight(m.Security, "/")
	if m.Main == "" {
		return Mirrors{}, fmt.Errorf("find mirror: security mirror %s is given without a main mirror", m.Security)
	}
	if m.Security == "" {
		base, ok := strings.CutSuffix(m.Main, mainDir)
		if !ok {
			return Mirrors{}, fmt.Errorf("find mirror: %s does not end in %s, so the security mirror cannot be derived from it; "+
				"pass --security-mirror URL", m.Main, mainDir)
		}
		m.Security = base + securityDir
	}
	for _, s := range []string{m.Main, m.Security} {
		if !usable(s) {
			return Mirrors{}, fmt.Errorf("find mirror: %q is not an http, https or file URL", s)
		}
	}
	return m, nil
}

// URL returns the address of a file, given by its path below the base of the archive.
func (m Mirrors) URL(id ID, file string) string {
	base := m.Main
	if id == Security {
		base = m.Security
	}
	return base + "/" + file
}

// hostMirrors reads both formats of sources.list(5). Entries of any release count: only the host is wanted.
func hostMirrors(apt fs.FS) (Mirrors, error) {
	names, err := fs.Glob(apt, "sources.list.d/*")
	if err != nil {
		return Mirrors{}, fmt.Errorf("find mirror: %w", err)
	}
	slices.Sort(names)
	var m Mirrors
	for _, name := range append([]string{"sources.list"}, names...) {
		parse := oneLineURIs
		switch path.Ext(name) {
		case ".sources":
			parse = stanzaURIs
		case ".list":
		default:
			continue // apt ignores them too
		}
		b, err := fs.ReadFile(apt, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Mirrors{}, fmt.Errorf("find mirror: %w", err)
		}
		uris, err := parse(name, b)
		if err != nil {
			return Mirrors{}, fmt.Errorf("find mirror in apt's %w", err)
		}
		for _, u := range uris {
			u = strings.TrimRight(u, "/")
			switch {
			case !usable(u):
			case strings.HasSuffix(u, mainDir) && m.Main == "":
				m.Main = u
			case strings.HasSuffix(u, securityDir) && m.Security == "":
				m.Security = u
			}
		}
	}
	return m, nil
}

// oneLineURIs reads lines of the form "deb [option=value ...] URI suite component ...".
func oneLineURIs(_ string, b []byte) ([]string, error) {
	var uris []string
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || strings.IndexByte(" \t", rest[0]) < 0 {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			if _, rest, ok = strings.Cut(rest, "]"); !ok {
				continue
			}
		}
		if f := strings.Fields(rest); len(f) > 1 {
			uris = append(uris, f[0])
		}
	}
	return uris, s.Err()
}

func stanzaURIs(name string, b []byte) ([]string, error) {
	var uris []string
	r := deb.NewParagraphReader(name, bytes.NewReader(b))
	for {
		p, err := r.Next()
		if err == io.EOF {
			return uris, nil
		}
		if err != nil {
			return nil, err
		}
		if p.Get("Enabled") == "no" || !slices.Contains(strings.Fields(p.Get("Types")), "deb") {
			continue
		}
		uris = append(uris, strings.Fields(p.Get("URIs"))...)
	}
}

func usable(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	switch u.Scheme {
	case "http", "https":
		return u.Host != ""
	case "file":
		return u.Host == "" && strings.HasPrefix(u.Path, "/")
	}
	return false
}
