package tuf

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Reason says what is wrong with a refused file.
type Reason string

// The reasons of a Refusal, in the words that people read.
const (
	WrongKey         Reason = "signed by a key that is not trusted"
	TooFewSignatures Reason = "too few signatures"
	Tampered         Reason = "tampered with"
	Rollback         Reason = "rollback: older than what this machine has already seen"
	Expired          Reason = "expired"
	Unsigned         Reason = "not signed"
	Missing          Reason = "missing on the server"
	Garbage          Reason = "not TUF metadata"
)

// A Refusal is metadata or a target that must not be used. The machine stays on what it runs.
type Refusal struct {
	Reason Reason
	File   string // as the server names it, or the target's name
	Detail string // expected and found
	Err    error  // go-tuf's, if any
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("refuse %s: %s: %s", r.File, r.Reason, r.Detail)
}

// Unwrap returns go-tuf's error.
func (r *Refusal) Unwrap() error { return r.Err }

// envelope is what all metadata files have in common.
type envelope struct {
	Signed struct {
		Type    string    `json:"_type"`
		Version int64     `json:"version"`
		Expires time.Time `json:"expires"`
	} `json:"signed"`
	Signatures []struct {
		KeyID string `json:"keyid"`
	} `json:"signatures"`
}

// usable reports whether stored metadata of a role can be given to the updater, which takes damage in it for an error of
// its own: bits rot, and the repository has the file again. A key of the wrong length makes the verifier panic.
func usable(role string, b []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	var err error
	switch role {
	case metadata.ROOT:
		var root *metadata.Metadata[metadata.RootType]
		if root, err = metadata.Root().FromBytes(b); err == nil {
			err = root.VerifyDelegate(metadata.ROOT, root)
		}
	case metadata.TIMESTAMP:
		_, err = metadata.Timestamp().FromBytes(b)
	case metadata.SNAPSHOT:
		_, err = metadata.Snapshot().FromBytes(b)
	default:
		_, err = metadata.Targets().FromBytes(b)
	}
	return err == nil
}

// explain turns the updater's error into one that a person can act on. It looks at the file that was fetched last,
// which is the one that the updater refused.
func (c *Client) explain(err error) error {
	file := path.Base(c.fetcher.url)
	var e envelope
	parseErr := json.Unmarshal(c.fetcher.body, &e)
	refuse := func(reason Reason, format string, args ...any) error {
		return &Refusal{Reason: reason, File: file, Detail: fmt.Sprintf(format, args...), Err: err}
	}
	var status *metadata.ErrDownloadHTTP
	switch {
	case errors.As(err, &status):
		file = path.Base(status.URL)
		return refuse(Missing, "is %s an update repository?", c.cfg.Server)
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		file, e.Signed.Version, e.Signed.Expires = c.expired(err, file, e)
		return refuse(Expired, "version %d was valid until %s, this machine's clock says %s: the repository is no longer maintained, or the clock is wrong",
			e.Signed.Version, e.Signed.Expires.UTC().Format(time.RFC3339), c.cfg.Now.UTC().Format(time.RFC3339))
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		return refuse(Rollback, "%s", strip(err))
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		reason, detail := c.signatures(e)
		return refuse(reason, "%s", detail)
	case errors.Is(err, &metadata.ErrLengthOrHashMismatch{}):
		return refuse(Tampered, "not the file that the signed metadata above it names: %s", strip(err))
	case errors.Is(err, &metadata.ErrRepository{}):
		return refuse(Tampered, "%s", strip(err))
	case c.fetcher.err != nil || c.fetcher.body == nil:
		return fmt.Errorf("fetch metadata from %s: %w", c.cfg.Server, err)
	case parseErr != nil || e.Signed.Type == "":
		return refuse(Garbage, "it starts with %.20q", c.fetcher.body)
	}
	return refuse(Tampered, "%s", strip(err))
}

// expired finds the file that an error of go-tuf is about: it may be one that was accepted long ago.
func (c *Client) expired(err error, file string, e envelope) (string, int64, time.Time) {
	set := c.updater.GetTrustedMetadataSet()
	switch msg := err.Error(); {
	case strings.Contains(msg, "root.json") && set.Root != nil:
		return rootFile, set.Root.Signed.Version, set.Root.Signed.Expires
	case strings.Contains(msg, "timestamp.json") && set.Timestamp != nil:
		return "timestamp.json", set.Timestamp.Signed.Version, set.Timestamp.Signed.Expires
	case strings.Contains(msg, "snapshot.json") && set.Snapshot != nil:
		return "snapshot.json", set.Snapshot.Signed.Version, set.Snapshot.Signed.Expires
	}
	return file, e.Signed.Version, e.Signed.Expires
}

// strip removes go-tuf's class from the front of its messages.
func strip(err error) string {
	_, msg, ok := strings.Cut(err.Error(), " error: ")
	if !ok {
		return err.Error()
	}
	return msg
}

// signatures compares who has signed with who should have.
func (c *Client) signatures(e envelope) (Reason, string) {
	trusted, threshold := c.keysOf(path.Base(c.fetcher.url))
	var signed, known []string
	for _, s := range e.Signatures {
		signed = append(signed, short(s.KeyID))
		if slices.Contains(trusted, s.KeyID) && !slices.Contains(known, s.KeyID) {
			known = append(known, s.KeyID)
		}
	}
	var want []string
	for _, k := range trusted {
		want = append(want, short(k))
	}
	switch {
	case len(known) >= threshold:
		return Tampered, fmt.Sprintf("the signatures of the trusted keys %s do not fit version %d of it: it was changed after it was signed",
			strings.Join(want, " "), e.Signed.Version)
	case len(known) > 0:
		return TooFewSignatures, fmt.Sprintf("%d of the %d that are needed from the keys %s", len(known), threshold, strings.Join(want, " "))
	}
	return WrongKey, fmt.Sprintf("signed by %s, trusted for this role: %s; is it the repository this machine's root.json belongs to?",
		strings.Join(signed, " "), strings.Join(want, " "))
}

// keysOf returns the trusted key ids and the threshold of the role of a file such as "3.plan.json".
func (c *Client) keysOf(file string) (keys []string, threshold int) {
	role := strings.TrimSuffix(file, ".json")
	if _, rest, ok := strings.Cut(role, "."); ok {
		role = rest
	}
	set := c.updater.GetTrustedMetadataSet()
	if r, ok := set.Root.Signed.Roles[role]; ok {
		return r.KeyIDs, r.Threshold
	}
	if t := set.Targets[metadata.TARGETS]; t != nil && t.Signed.Delegations != nil {
		for _, r := range t.Signed.Delegations.Roles {
			if r.Name == role {
				return r.KeyIDs, r.Threshold
			}
		}
	}
	return nil, 1
}

// short is the beginning of a key id, which may be anything before it is verified.
func short(keyID string) string {
	for _, r := range keyID {
		if !strings.ContainsRune("0123456789abcdef", r) {
			return "(no key id)"
		}
	}
	return keyID[:min(8, len(keyID))]
}
