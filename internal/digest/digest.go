// Package digest is the one hash of Proa's formats: SHA-256, written as 64 lower-case hexadecimal digits.
//
// A Reader lets bytes through while it hashes and counts them, and turns the end of the stream into an
// error when the content is not the expected one, so that no caller can forget to compare.
package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// SHA256 is a SHA-256 sum (FIPS 180-4).
type SHA256 [sha256.Size]byte

// Of returns the sum of b.
func Of(b []byte) SHA256 { return sha256.Sum256(b) }

// OfReader returns the sum and the length in bytes of all that r yields.
func OfReader(r io.Reader) (SHA256, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return SHA256{}, n, err
	}
	return SHA256(h.Sum(nil)), n, nil
}

// Parse reads 64 hexadecimal digits in lower case; anything else is an error.
func Parse(s string) (SHA256, error) {
	var d SHA256
	if len(s) != hex.EncodedLen(len(d)) {
		return d, fmt.Errorf("parse sha256 %q: want %d hexadecimal digits, found %d characters", s, hex.EncodedLen(len(d)), len(s))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return SHA256{}, fmt.Errorf("parse sha256 %q: %w", s, err)
	}
	if d.String() != s {
		return SHA256{}, fmt.Errorf("parse sha256 %q: want lower-case digits", s)
	}
	return d, nil
}

// String returns the 64 digits.
func (d SHA256) String() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether d was never set.
func (d SHA256) IsZero() bool { return d == SHA256{} }

// MarshalText and UnmarshalText make d a string in JSON and TOML.
func (d SHA256) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the inverse of MarshalText, with Parse's errors.
func (d *SHA256) UnmarshalText(b []byte) error {
	v, err := Parse(string(b))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// A MismatchError says that content is not the expected one.
type MismatchError struct {
	Name              string // what was read: a file, a URL
	WantSize, GotSize int64  // bytes
	WantSum, GotSum   SHA256 // GotSum is zero when the size already differs
}

func (e *MismatchError) Error() string {
	if e.WantSize != e.GotSize {
		return fmt.Sprintf("%s: expected %d bytes, found %d", e.Name, e.WantSize, e.GotSize)
	}
	return fmt.Sprintf("%s: expected sha256 %s, found %s", e.Name, e.WantSum, e.GotSum)
}

// Reader passes r on and, in place of io.EOF, returns a *MismatchError unless exactly size bytes with
// the sum want were read. It reads at most one byte past size, so an endless stream ends there.
type Reader struct {
	name string
	r    io.Reader
	h    hash.Hash
	want SHA256
	size int64
	n    int64
}

// NewReader returns a Reader; name is what errors call the content.
func NewReader(name string, r io.Reader, size int64, want SHA256) *Reader {
	return &Reader{name: name, r: r, h: sha256.New(), want: want, size: size}
}

func (v *Reader) Read(p []byte) (int, error) {
	if int64(len(p)) > v.size-v.n+1 {
		p = p[:v.size-v.n+1]
	}
	n, err := v.r.Read(p)
	v.n += int64(n)
	if v.n > v.size {
		return 0, &MismatchError{Name: v.name, WantSize: v.size, GotSize: v.n}
	}
	v.h.Write(p[:n])
	if err == io.EOF {
		if v.n != v.size {
			return n, &MismatchError{Name: v.name, WantSize: v.size, GotSize: v.n}
		}
		if got := SHA256(v.h.Sum(nil)); got != v.want {
			return n, &MismatchError{Name: v.name, WantSize: v.size, GotSize: v.n, WantSum: v.want, GotSum: got}
		}
	}
	return n, err
}
