// Package cmdline reads the kernel command line, which in Proa is the only thing that says what may be booted:
// it is part of the signed boot program and carries the root hash and the hash offset of its root image.
//
// Words are split as the kernel splits them (lib/cmdline.c, next_arg): white space separates, double quotes
// protect white space, a quote around the whole word or around the whole value is dropped, and there is no
// escape. Unlike the kernel, "-" and "_" in a key are different characters, and "--" is a word like any
// other: systemd-stub appends what firmware and add-ons hand over behind the signed words, and nothing there
// may escape the rule that proa.* keys appear exactly once.
package cmdline

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/proa-os/proa/internal/digest"
)

// The keys that tie a boot program to its root image.
const (
	KeyRootHash   = "proa.roothash"   // dm-verity root hash: 64 lower-case hexadecimal digits
	KeyHashOffset = "proa.hashoffset" // byte offset of the verity superblock in the slot
)

// blockSize is the verity block size, of which a hash offset is a multiple (docs/formats.md, "root image").
const blockSize = 4096

var (
	// ErrAbsent is wrapped by Once when the key is not on the line.
	ErrAbsent = errors.New("not on the kernel command line")
	// ErrRepeated is wrapped by Once when the key is there more than once.
	ErrRepeated = errors.New("more than once on the kernel command line")
)

// Word is one word of the line. "quiet" has a key only; "root=" has an empty value.
type Word struct {
	Key, Value string
	HasValue   bool
}

// Line is a parsed command line, in order.
type Line struct {
	words []Word
}

// Parse splits s. Every string is a command line, so there is no error: an open quote runs to the end, as in
// the kernel. A NUL ends the line.
func Parse(s string) Line {
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	var l Line
	for {
		s = strings.TrimLeftFunc(s, isSpace)
		if s == "" {
			return l
		}
		n := wordLen(s)
		l.words = append(l.words, split(s[:n]))
		s = s[n:]
	}
}

// isSpace is the kernel's isspace (lib/ctype.c) without Latin-1's no-break space 0xa0, a byte of many UTF-8 letters.
func isSpace(r rune) bool {
	return r == ' ' || '\t' <= r && r <= '\r'
}

// wordLen returns the length of the first word of s, quotes included.
func wordLen(s string) int {
	quoted := false
	for i := range len(s) {
		if s[i] == '"' {
			quoted = !quoted
		}
		if !quoted && isSpace(rune(s[i])) {
			return i
		}
	}
	return len(s)
}

// split takes one raw word apart. A quote before the word or its value is dropped, and with it one at the end.
func split(raw string) Word {
	text, quoted := strings.CutPrefix(raw, `"`)
	// A "=" in first place belongs to the key: the kernel takes position 0 as "none seen".
	sep := 0
	if text != "" {
		sep = strings.IndexByte(text[1:], '=') + 1
	}
	value := ""
	if sep > 0 {
		var q bool
		value, q = strings.CutPrefix(text[sep+1:], `"`)
		quoted = quoted || q
	}
	switch {
	case sep > 0 && quoted:
		return Word{Key: text[:sep], Value: strings.TrimSuffix(value, `"`), HasValue: true}
	case sep > 0:
		return Word{Key: text[:sep], Value: value, HasValue: true}
	case quoted:
		return Word{Key: strings.TrimSuffix(text, `"`)}
	default:
		return Word{Key: text}
	}
}

// Words returns all words in order.
func (l Line) Words() []Word { return slices.Clone(l.words) }

// All returns the values of every word with the key, in order; a word without a value counts as "".
func (l Line) All(key string) []string {
	var values []string
	for _, w := range l.words {
		if w.Key == key {
			values = append(values, w.Value)
		}
	}
	return values
}

// Get returns the last value of the key, which is the one that wins in the kernel and in systemd.
func (l Line) Get(key string) (value string, found bool) {
	values := l.All(key)
	if len(values) == 0 {
		return "", false
	}
	return values[len(values)-1], true
}

// Once returns the value of a key that must appear exactly once, else an error wrapping ErrAbsent or ErrRepeated.
func (l Line) Once(key string) (string, error) {
	switch values := l.All(key); len(values) {
	case 1:
		return values[0], nil
	case 0:
		return "", fmt.Errorf("%s: %w", key, ErrAbsent)
	default:
		return "", fmt.Errorf("%s: %w: expected 1, found %d", key, ErrRepeated, len(values))
	}
}

// Proa returns the root hash and the hash offset (bytes) of the booted root image. Any key beginning with "proa."
// that appears twice is an error, also one that this version does not know.
func Proa(l Line) (rootHash digest.SHA256, hashOffset int64, err error) {
	for _, w := range l.words {
		if !strings.HasPrefix(w.Key, "proa.") {
			continue
		}
		if _, err := l.Once(w.Key); err != nil {
			return digest.SHA256{}, 0, err
		}
	}
	text, err := l.Once(KeyRootHash)
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	if rootHash, err = digest.Parse(text); err != nil {
		return digest.SHA256{}, 0, fmt.Errorf("read %s: %w", KeyRootHash, err)
	}
	if text, err = l.Once(KeyHashOffset); err != nil {
		return digest.SHA256{}, 0, err
	}
	hashOffset, err = strconv.ParseInt(text, 10, 64)
	if err != nil || hashOffset <= 0 || hashOffset%blockSize != 0 || text != strconv.FormatInt(hashOffset, 10) {
		return digest.SHA256{}, 0, fmt.Errorf("read %s: expected a positive multiple of %d in bytes, found %q", KeyHashOffset, blockSize, text)
	}
	return rootHash, hashOffset, nil
}
