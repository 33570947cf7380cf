package tuf

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
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
	Clock            Reason = "this machine's clock is wrong"
	Unsigned         Reason = "not signed"
	Missing          Reason = "missing on the server"
	Garbage          Reason = "not TUF metadata"
)

// absurd is how far off an expiry may be before the clock is more likely wrong than the repository.
const absurd = 5 * 365 * 24 * time.Hour

// A Refusal is metadata or a target that must not be used. The machine stays on what it runs.
type Refusal struct {
	Reason Reason
	File   string // as the server names it, or the target's name
	Detail string // expected and found, and what to do
	Err    error  // the reason's reason, if any
}

// elsewhere ends the refusal of what a server should not give: whoever runs the machine can do no more, whoever runs the server sees there what is wrong.
const elsewhere = "; ask another server (mirrors in the configuration); release verify --repo URL says what is wrong with this one"

func (r *Refusal) Error() string {
	return fmt.Sprintf("refuse %s: %s: %s", r.File, r.Reason, r.Detail)
}

// Unwrap returns the error underneath.
func (r *Refusal) Unwrap() error { return r.Err }

// expired refuses a file that is no longer valid, or doubts the clock.
func (c *Client) expired(file string, version int64, until time.Time) error {
	r := &Refusal{Reason: Expired, File: file, Detail: fmt.Sprintf("version %d was valid until %s, this machine's clock says %s: the repository is no longer maintained "+
		"(%s renews it), a mirror or a stick is old, somebody holds back what is new, or the clock is wrong",
		version, until.UTC().Format(time.RFC3339), c.cfg.Now.UTC().Format(time.RFC3339), renewal(file))}
	if c.cfg.Now.Sub(until) > absurd {
		r.Reason = Clock
		r.Detail = fmt.Sprintf("the clock says %s, and version %d was valid until %s: see timedatectl; if the clock is right, nobody has maintained this repository for years",
			c.cfg.Now.UTC().Format(time.RFC3339), version, until.UTC().Format(time.RFC3339))
	}
	return r
}

// renewal is the desk's command for a file that has expired: offline roles are signed anew, online ones by themselves.
func renewal(file string) string {
	if strings.HasSuffix(file, rootFile) || strings.HasSuffix(file, roleTargets+".json") {
		return "release renew, sign and publish"
	}
	return "release refresh"
}

func rollback(file, about string, got, seen int64) error {
	detail := fmt.Sprintf("version %d, this machine has seen %d", got, seen)
	if about != file {
		detail = fmt.Sprintf("it names version %d of %s, this machine has seen %d", got, about, seen)
	}
	return &Refusal{Reason: Rollback, File: file, Detail: detail + ": a mirror that lags behind, or somebody who offers an old release" + elsewhere}
}

func mixed(file string, got int64, above string, want int64) error {
	return &Refusal{Reason: Tampered, File: file, Detail: fmt.Sprintf("it is version %d, %s names version %d: the server gives files of different times%s", got, above, want, elsewhere)}
}

// missing makes a refusal of a file that no server has.
func (c *Client) missing(file string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return &Refusal{Reason: Missing, File: file, Detail: fmt.Sprintf("is %s an update repository? %v%s", c.cfg.Server, err, elsewhere), Err: err}
}

// A delegator says which keys sign for a role.
type delegator struct {
	keys map[string]*key
	role func(name string) *role // nil if it does not know it
}

func byRoot(root *signedFile[rootContent]) delegator {
	return delegator{root.Signed.Keys, func(name string) *role { return root.Signed.Roles[name] }}
}

func byTargets(m *signedFile[targetsContent]) delegator {
	return delegator{m.Signed.Delegations.Keys, func(name string) *role {
		for _, r := range m.Signed.Delegations.Roles {
			if r.Name == name {
				return &r.role
			}
		}
		return nil
	}}
}

// bytesAndSignatures is what is to be checked of a file.
type bytesAndSignatures struct {
	payload    []byte
	signatures []signature
	version    int64
}

func (m *signedFile[T]) signed() bytesAndSignatures {
	return bytesAndSignatures{m.payload, m.Signatures, any(m.Signed).(content).common().Version}
}

// check looks at signatures and, if they do not suffice, says who has signed and who should have.
func (d delegator) check(file, name string, m bytesAndSignatures) error {
	refuse := func(reason Reason, format string, args ...any) error {
		return &Refusal{Reason: reason, File: file, Detail: fmt.Sprintf(format, args...)}
	}
	r := d.role(name)
	if r == nil {
		return refuse(Garbage, "nobody says whose keys sign for %s%s", name, elsewhere)
	}
	n, names, err := signers(d.keys, r, m.payload, m.signatures)
	if err != nil {
		return refuse(Garbage, "%v for %s%s", err, name, elsewhere)
	}
	if n >= r.Threshold {
		return nil
	}
	var signed, known []string
	for _, s := range m.signatures {
		signed = append(signed, s.KeyID)
		if slices.Contains(r.KeyIDs, s.KeyID) {
			known = append(known, s.KeyID)
		}
	}
	switch {
	case len(known) >= r.Threshold && names < len(known):
		return refuse(Tampered, "the signatures of the trusted keys %s do not fit version %d of it: it was changed after it was signed%s", list(r.KeyIDs), m.version, elsewhere)
	case len(known) > 0:
		twice := ""
		if names > n {
			twice = " (a key under two names counts once)"
		}
		return refuse(TooFewSignatures, "%d of the %d that are needed from the keys %s%s: run release sign where the other keys are", n, r.Threshold, list(r.KeyIDs), twice)
	}
	return refuse(WrongKey, "signed by %s, trusted for this role: %s; is it the repository this machine's root.json belongs to? "+
		"if not, correct the server in the configuration; if it is, somebody else has signed this: ask another server",
		list(signed), list(r.KeyIDs))
}

// list names a few keys; a server can send many.
func list(keyIDs []string) string {
	const most = 8
	var names []string
	for _, id := range keyIDs[:min(len(keyIDs), most)] {
		names = append(names, short(id))
	}
	if len(keyIDs) > most {
		names = append(names, fmt.Sprintf("and %d more", len(keyIDs)-most))
	}
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, " ")
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
