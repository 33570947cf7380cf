package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/internal/digest"
)

// Keyring is the set of public keys whose signature under an index counts.
type Keyring struct{ keys openpgp.EntityList }

// ReadKeyring reads every *.gpg file (binary OpenPGP public keys) in the root of dir. None at all is an error.
func ReadKeyring(dir fs.FS) (Keyring, error) {
	names, err := fs.Glob(dir, "*.gpg")
	if err != nil {
		return Keyring{}, fmt.Errorf("read keyring: %w", err)
	}
	var k Keyring
	for _, name := range names {
		b, err := fs.ReadFile(dir, name)
		if err != nil {
			return Keyring{}, fmt.Errorf("read keyring: %w", err)
		}
		keys, err := openpgp.ReadKeyRing(bytes.NewReader(b))
		if err != nil {
			return Keyring{}, fmt.Errorf("read keyring %s: %w", name, err)
		}
		k.keys = append(k.keys, keys...)
	}
	if len(k.keys) == 0 {
		return Keyring{}, errors.New("read keyring: no *.gpg file in the key directory (--keys)")
	}
	return k, nil
}

// Release is the verified content of an InRelease file.
type Release struct {
	Suite  string    // the suite asked for, and the Codename inside
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
	p, err := deb.ParseParagraph(name, signed)
	if err != nil {
		return nil, fmt.Errorf("verify %w", err)
	}
	r := &Release{Suite: suite, Signer: signer}
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

// verifyClearsigned returns the signed text of a message in OpenPGP's cleartext signature framework (RFC 9580, 7).
// Text in front of or behind the signed part is refused, since readers disagree about what to do with it.
func verifyClearsigned(b []byte, keys Keyring, now time.Time) (text []byte, signer string, err error) {
	if !bytes.HasPrefix(b, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return nil, "", fmt.Errorf("expected a signed text, found %.40q", b)
	}
	block, rest := clearsign.Decode(b)
	if block == nil {
		return nil, "", errors.New("the signed text is cut off or malformed")
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, "", errors.New("there is text behind the signature")
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	entity, err := block.VerifySignature(keys.keys, config)
	if errors.Is(err, pgperrors.ErrUnknownIssuer) {
		return nil, "", errors.New("it is not signed by any key of the keyring (--keys): add the archive's current key if it has changed")
	}
	if errors.Is(err, pgperrors.ErrSignatureExpired) || errors.Is(err, pgperrors.ErrKeyExpired) {
		return nil, "", fmt.Errorf("%w at %s, which is now by this host's clock: set the clock if it is wrong", err, now.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return nil, "", fmt.Errorf("bad signature: %w", err)
	}
	if id := entity.PrimaryIdentity(); id != nil {
		signer = id.Name
	}
	return block.Plaintext, signer, nil
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
		files[w[2]] = File{Path: w[2], Size: size, SHA256: sum}
	}
	return files, nil
}
