package archive

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/internal/digest"
)

// Release is the verified content of an InRelease file.
type Release struct {
	Suite  string    // the suite asked for, and the Codename inside
	Status string    // what the archive calls it now: stable, oldstable-security
	Date   time.Time // when the archive was last changed
	Signer string    // user id of the key that signed

	files map[string]File
}

// File is an index named by a Release.
type File struct {
	Path   string // below dists/<suite>/
	Size   int64  // bytes
	SHA256 digest.SHA256
}

// clockSkew is how far in the future a Date may lie.
const clockSkew = 24 * time.Hour

// VerifyRelease checks an InRelease file as described in the package comment. name is what errors call the file.
func VerifyRelease(name string, b []byte, suite string, keys Keyring, now time.Time) (*Release, error) {
	signed, signer, err := verifyClearsigned(b, keys, now)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", name, err)
	}
	r, err := parseRelease(name, signed, suite, now)
	if err != nil {
		return nil, err
	}
	r.Signer = signer
	return r, nil
}

// parseRelease reads the signed text.
func parseRelease(name string, signed []byte, suite string, now time.Time) (*Release, error) {
	p, err := deb.ParseParagraph(name, signed)
	if err != nil {
		return nil, fmt.Errorf("verify %w", err)
	}
	r := &Release{Suite: suite, Status: p.Get("Suite")}
	if got := p.Get("Codename"); got != suite {
		return nil, fmt.Errorf("verify %s: expected codename %s, found %q", name, suite, got)
	}
	if r.Date, err = releaseTime(p, "Date"); err != nil {
		return nil, fmt.Errorf("verify %s: %w", name, err)
	}
	if r.Date.After(now.Add(clockSkew)) {
		return nil, fmt.Errorf("verify %s: it is dated %s, this host's clock says %s: set the clock",
			name, r.Date.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if p.Has("Valid-Until") {
		until, err := releaseTime(p, "Valid-Until")
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", name, err)
		}
		if now.After(until) {
			return nil, fmt.Errorf("verify %s: it was valid until %s, now is %s: the mirror is stale, choose another, or set the clock",
				name, until.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
	}
	if r.files, err = parseFiles(p.Get("SHA256")); err != nil {
		return nil, fmt.Errorf("verify %s: %w", name, err)
	}
	return r, nil
}

// File returns the index with this path below dists/<suite>/.
func (r *Release) File(path string) (File, bool) {
	f, ok := r.files[path]
	return f, ok
}

// releaseTime reads a date as Release files have it; the zone is always UTC, sometimes written as +0000.
func releaseTime(p deb.Paragraph, field string) (time.Time, error) {
	s := p.Get(field)
	for _, layout := range []string{"Mon, 2 Jan 2006 15:04:05 MST", time.RFC1123Z} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%s %q is not a date", field, s)
}

// parseFiles reads lines of "sha256 size path".
func parseFiles(field string) (map[string]File, error) {
	files := make(map[string]File)
	for line := range strings.Lines(field) {
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		if len(w) != 3 {
			return nil, fmt.Errorf("SHA256: expected \"sum size path\", found %.200q", line)
		}
		sum, err := digest.Parse(w[0])
		if err != nil {
			return nil, fmt.Errorf("SHA256: %w", err)
		}
		size, err := strconv.ParseInt(w[1], 10, 64)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("SHA256: size %q of %s is not a number", w[1], w[2])
		}
		if path.Clean("/"+w[2]) != "/"+w[2] {
			return nil, fmt.Errorf("SHA256: path %q is not allowed", w[2])
		}
		if _, twice := files[w[2]]; twice {
			return nil, fmt.Errorf("SHA256: %s is there twice", w[2])
		}
		files[w[2]] = File{Path: w[2], Size: size, SHA256: sum}
	}
	return files, nil
}
