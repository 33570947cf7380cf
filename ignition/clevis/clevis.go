// Package clevis locks secrets and opens them again, in the formats of clevis (https://github.com/latchset/clevis): what one has locked, the
// other opens.
//
// A lock is a JWE whose header says which pin it is for and what that pin needs:
//
//	clevis.pin   alg      key                                    clevis.PIN
//	tang         ECDH-ES  shared with the server's exchange key  url, adv: the server's keys; kid: which of them; epk: ours
//	sss          dir      any t of the points give it            jwe: one lock for each point, p: the prime, t
//	tpm2         dir      a JWK that the TPM has sealed          jwk_pub, jwk_priv: TPM2B structures; hash, key
//
// On a volume of LUKS2 a lock stands in a token (type "clevis", in flattened form), which names the key slot that the secret opens.
//
// Package pin has the configs, tang and tpm ask whoever holds the other part.
package clevis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/proa-os/proa/ignition/jose"
	"github.com/proa-os/proa/ignition/pin"
	"github.com/proa-os/proa/ignition/shamir"
	"github.com/proa-os/proa/ignition/tang"
)

// A TPM seals small secrets. Nothing but this TPM, at any state of the system, opens them.
type TPM interface {
	Seal(secret []byte) (public, private []byte, err error)
	Unseal(public, private []byte) ([]byte, error)
}

// A Locker locks and opens.
type Locker struct {
	TPM TPM // nil: the machine has none

	turn sync.Mutex // of commands to the TPM
}

// ErrUntrusted is why nothing is locked by a server that has answered.
var ErrUntrusted = errors.New("untrusted advertisement")

// A ServerError is a tang server's that does not answer, or not with what it was asked for.
type ServerError struct {
	URL        string
	Thumbprint string // of the key that it was asked for
	Err        error
}

func (e *ServerError) Error() string {
	return fmt.Sprintf("tang server %s, key %s: %v", e.URL, e.Thumbprint, e.Err)
}

func (e *ServerError) Unwrap() error { return e.Err }

// header is a lock's, in the order of clevis's own.
type header struct {
	Alg    string    `json:"alg"`
	Clevis pinHeader `json:"clevis"`
	Enc    string    `json:"enc"`
	EPK    *jose.Key `json:"epk,omitempty"`
	KeyID  string    `json:"kid,omitempty"`
	PartyU string    `json:"apu,omitempty"`
	PartyV string    `json:"apv,omitempty"`
}

type pinHeader struct {
	Pin  string      `json:"pin"`
	SSS  *sssHeader  `json:"sss,omitempty"`
	Tang *tangHeader `json:"tang,omitempty"`
	TPM2 *tpm2Header `json:"tpm2,omitempty"`
}

type tangHeader struct {
	Keys json.RawMessage `json:"adv"`
	URL  string          `json:"url"`
}

type sssHeader struct {
	Locks     []string `json:"jwe"`
	Prime     string   `json:"p"`
	Threshold int      `json:"t"`
}

const encryption = "A256GCM"

// Lock locks a secret. It asks the servers whose advertisement the config does not have.
func (l *Locker) Lock(ctx context.Context, p pin.Pin, secret []byte) (*jose.Sealed, error) {
	switch {
	case p.Tang != nil:
		return lockTang(ctx, *p.Tang, secret)
	case p.TPM2 != nil:
		return l.lockTPM(secret)
	}
	return l.lockSSS(ctx, *p.SSS, secret)
}

func lockTang(ctx context.Context, t pin.Tang, secret []byte) (*jose.Sealed, error) {
	advertisement, err := []byte(t.Advertisement), error(nil)
	if t.Advertisement == nil {
		if advertisement, err = tang.Get(ctx, t.URL, t.Thumbprint); err != nil {
			return nil, &ServerError{t.URL, t.Thumbprint, fmt.Errorf("get advertisement: %w", err)}
		}
	}
	set, raw, err := tang.Check(advertisement, t.Thumbprint)
	var key jose.Key
	if err == nil {
		key, err = tang.Exchange(set)
	}
	if err != nil {
		return nil, fmt.Errorf("%w of tang server %s: %w", ErrUntrusted, t.URL, err)
	}
	own, shared, err := tang.Lock(key)
	if err != nil {
		return nil, err
	}
	return jose.Seal(header{Alg: "ECDH-ES", Enc: encryption, EPK: &own, KeyID: key.Thumbprint(),
		Clevis: pinHeader{Pin: pin.NameTang, Tang: &tangHeader{Keys: raw, URL: t.URL}}}, jose.Derive(shared, nil, nil), secret)
}

func (l *Locker) lockSSS(ctx context.Context, s pin.SSS, secret []byte) (*jose.Sealed, error) {
	field := shamir.NewField()
	key, points, err := field.Split(s.Threshold, len(s.Pins))
	if err != nil {
		return nil, err
	}
	h := &sssHeader{Prime: jose.Encode(field.Bytes()), Threshold: s.Threshold}
	for n, p := range s.Pins {
		one, err := l.Lock(ctx, p, points[n])
		if err != nil {
			return nil, err
		}
		h.Locks = append(h.Locks, one.String())
	}
	return jose.Seal(header{Alg: "dir", Enc: encryption, Clevis: pinHeader{Pin: pin.NameSSS, SSS: h}}, key, secret)
}

// maxDepth is how far locks may be in locks: theirs are by a third longer each time.
const maxDepth = 8

// Open opens a lock. It asks the servers that it names.
func (l *Locker) Open(ctx context.Context, lock *jose.Sealed) ([]byte, error) {
	return l.open(ctx, lock, 0)
}

func (l *Locker) open(ctx context.Context, lock *jose.Sealed, depth int) ([]byte, error) {
	var h header
	if err := json.Unmarshal(lock.Header, &h); err != nil {
		return nil, fmt.Errorf("read header of lock: %w", err)
	}
	if h.Enc != encryption {
		return nil, fmt.Errorf("read header of lock: expected %s, found %.20q", encryption, h.Enc)
	}
	var key []byte
	var err error
	switch c := h.Clevis; {
	case c.Pin == pin.NameTang && c.Tang != nil && h.EPK != nil:
		key, err = h.askTang(ctx)
	case c.Pin == pin.NameSSS && c.SSS != nil:
		key, err = l.putTogether(ctx, *c.SSS, depth)
	case c.Pin == pin.NameTPM2 && c.TPM2 != nil:
		key, err = l.unseal(*c.TPM2)
	default:
		return nil, fmt.Errorf("read header of lock: expected a pin tang, sss or tpm2 with what it needs, found %.20q", c.Pin)
	}
	if err != nil {
		return nil, err
	}
	return lock.Open(key)
}

func (h header) askTang(ctx context.Context) ([]byte, error) {
	t := h.Clevis.Tang
	set, err := jose.ParseSet(t.Keys)
	if err != nil {
		return nil, err
	}
	server, ok := set.Find(h.KeyID)
	if !ok {
		return nil, fmt.Errorf("read header of lock: key %.60q is not among the server's", h.KeyID)
	}
	u, err1 := jose.Decode(h.PartyU)
	v, err2 := jose.Decode(h.PartyV)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	shared, err := tang.Unlock(ctx, t.URL, h.KeyID, server, *h.EPK)
	if err != nil {
		return nil, &ServerError{t.URL, h.KeyID, err}
	}
	return jose.Derive(shared, u, v), nil
}

// putTogether asks for all points at once and takes the first ones that come: a server that is away holds nobody up whom it is not needed by.
func (l *Locker) putTogether(ctx context.Context, s sssHeader, depth int) ([]byte, error) {
	if depth == maxDepth || len(s.Locks) > pin.MaxPins {
		return nil, fmt.Errorf("read header of lock: expected at most %d locks, and locks in locks %d times", pin.MaxPins, maxDepth)
	}
	if s.Threshold < 1 || s.Threshold > len(s.Locks) {
		return nil, fmt.Errorf("read header of lock: expected a threshold of 1 to %d, found %d", len(s.Locks), s.Threshold)
	}
	prime, err := jose.Decode(s.Prime)
	if err != nil {
		return nil, err
	}
	field, err := shamir.ParseField(prime)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		point []byte
		err   error
	}
	results := make(chan result, len(s.Locks))
	for _, text := range s.Locks {
		go func() {
			lock, err := jose.ParseSealed(text)
			var point []byte
			if err == nil {
				point, err = l.open(ctx, lock, depth+1)
			}
			results <- result{point, err}
		}()
	}
	var points [][]byte
	var failed []error
	for range s.Locks {
		r := <-results
		if r.err != nil {
			failed = append(failed, r.err)
			continue
		}
		if points = append(points, r.point); len(points) == s.Threshold {
			return field.Recover(points)
		}
	}
	return nil, fmt.Errorf("opened %d of %d locks, and %d are needed: %w", len(points), len(s.Locks), s.Threshold, errors.Join(failed...))
}

// Describe says in a line what opens a lock: "tang http://HOST", "2 of (tang http://HOST, tpm2)".
func Describe(lock *jose.Sealed) string { return describe(lock, 0) }

func describe(lock *jose.Sealed, depth int) string {
	var h header
	if err := json.Unmarshal(lock.Header, &h); err != nil || depth == maxDepth {
		return "unreadable"
	}
	switch c := h.Clevis; {
	case c.Tang != nil:
		return fmt.Sprintf("tang %q key %.60s", c.Tang.URL, h.KeyID)
	case c.SSS != nil:
		var list []string
		for _, text := range c.SSS.Locks {
			one := "unreadable"
			if s, err := jose.ParseSealed(text); err == nil {
				one = describe(s, depth+1)
			}
			list = append(list, one)
		}
		return fmt.Sprintf("%d of (%s)", c.SSS.Threshold, strings.Join(list, ", "))
	}
	return fmt.Sprintf("%.20q", h.Clevis.Pin)
}
