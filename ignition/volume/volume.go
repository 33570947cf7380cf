// Package volume binds encrypted volumes of LUKS2 to locks, and opens them: the key of a key slot, locked by package clevis, stands in a token
// of the volume's header.
//
//	{"type": "clevis", "keyslots": ["1"], "jwe": {"ciphertext", "encrypted_key", "iv", "protected", "tag"}}
//
// That is what `clevis luks bind` writes and `clevis luks unlock` reads; either program opens what the other has bound. At boot
// systemd-cryptsetup asks for the key at a socket (crypttab(5): a key file may be one), behind which Answer asks whoever has a part of it.
//
// Headers are read and written by cryptsetup(8), which knows both copies of a header and what to do when one is damaged.
package volume

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/proa-os/proa/ignition/clevis"
	"github.com/proa-os/proa/ignition/jose"
	"github.com/proa-os/proa/ignition/pin"
)

// A Token is a lock in a volume's header.
type Token struct {
	ID    string // in the header
	Slots []string
	Lock  *jose.Sealed
}

// tokenType is clevis's.
const tokenType = "clevis"

// maxSlots is that of LUKS2 On-Disk Format Specification, 3.3.
const maxSlots = 32

// A Cryptsetup runs cryptsetup(8) with a standard input. key, if not nil, is what it reads from /dev/fd/3.
type Cryptsetup func(ctx context.Context, stdin, key []byte, args ...string) ([]byte, error)

// Program is the machine's.
func Program(ctx context.Context, stdin, key []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "cryptsetup", args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "LC_ALL=C"}
	cmd.Stdin = bytes.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if key != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer r.Close()
		cmd.ExtraFiles = []*os.File{r}
		if _, err := w.Write(key); err != nil { // a key fits into a pipe
			return nil, errors.Join(err, w.Close())
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("cryptsetup %s: %w: %s", args[0], err, strings.Join(strings.Fields(stderr.String()), " "))
	}
	return out.Bytes(), nil
}

// metadata is a header's, as far as it matters here.
type metadata struct {
	KeySlots map[string]struct{}        `json:"keyslots"`
	Tokens   map[string]json.RawMessage `json:"tokens"`
}

func (c Cryptsetup) dump(ctx context.Context, device string) (m metadata, err error) {
	out, err := c(ctx, nil, nil, "luksDump", "--dump-json-metadata", device)
	if err == nil {
		err = json.Unmarshal(out, &m)
	}
	if err != nil {
		return m, fmt.Errorf("read header of %s: %w", device, err)
	}
	return m, nil
}

// Locks are those of a volume, in the order of their numbers.
func (c Cryptsetup) Locks(ctx context.Context, device string) ([]Token, error) {
	m, err := c.dump(ctx, device)
	if err != nil {
		return nil, err
	}
	var list []Token
	for _, id := range slices.Sorted(maps.Keys(m.Tokens)) {
		var t struct {
			Type  string          `json:"type"`
			Slots []string        `json:"keyslots"`
			Lock  json.RawMessage `json:"jwe"`
		}
		if err := json.Unmarshal(m.Tokens[id], &t); err != nil || t.Type != tokenType {
			continue // of another kind
		}
		lock := new(jose.Sealed)
		if err := json.Unmarshal(t.Lock, lock); err != nil {
			return nil, fmt.Errorf("read token %s of %s: %w", id, device, err)
		}
		list = append(list, Token{id, t.Slots, lock})
	}
	return list, nil
}

// Bind adds a key of its own to a volume, locked by the pin, and its token. existing is a key that the volume has.
func (c Cryptsetup) Bind(ctx context.Context, k *clevis.Locker, device string, p pin.Pin, existing []byte) error {
	raw := make([]byte, jose.KeySize)
	if _, err := rand.Read(raw); err != nil {
		return err
	}
	key := []byte(jose.Encode(raw)) // text: clevis passes it on through a shell
	lock, err := k.Lock(ctx, p, key)
	if err != nil {
		return err
	}
	m, err := c.dump(ctx, device)
	if err != nil {
		return err
	}
	slot := ""
	for n := range maxSlots {
		if _, used := m.KeySlots[strconv.Itoa(n)]; !used {
			slot = strconv.Itoa(n)
			break
		}
	}
	if slot == "" {
		return fmt.Errorf("bind %s: all of its %d key slots are used: remove one (cryptsetup luksKillSlot)", device, maxSlots)
	}
	// Random through and through, the key needs no function that makes guessing slow.
	if _, err := c(ctx, existing, key, "luksAddKey", "--batch-mode", "--key-slot", slot, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", device, "/dev/fd/3"); err != nil {
		return fmt.Errorf("bind %s: %w", device, err)
	}
	token, err := json.Marshal(struct {
		Type  string       `json:"type"`
		Slots []string     `json:"keyslots"`
		Lock  *jose.Sealed `json:"jwe"`
	}{tokenType, []string{slot}, lock})
	if err == nil {
		_, err = c(ctx, token, nil, "token", "import", "--json-file", "-", device)
	}
	if err != nil {
		_, undo := c(ctx, nil, nil, "luksKillSlot", "--batch-mode", device, slot)
		return errors.Join(fmt.Errorf("bind %s: %w", device, err), undo)
	}
	return nil
}

// Open opens a volume under a name, by the first of its locks that opens. options are cryptsetup's.
func (c Cryptsetup) Open(ctx context.Context, k *clevis.Locker, device, name string, options ...string) error {
	locks, err := c.Locks(ctx, device)
	if err != nil {
		return err
	}
	key, err := First(ctx, k, locks)
	if err != nil {
		return fmt.Errorf("open %s: %w", device, err)
	}
	_, err = c(ctx, key, nil, slices.Concat([]string{"luksOpen", "--key-file", "-"}, options, []string{device, name})...)
	return err
}

// First opens locks until one opens.
func First(ctx context.Context, k *clevis.Locker, locks []Token) ([]byte, error) {
	if len(locks) == 0 {
		return nil, errors.New("the volume has no token of type clevis")
	}
	var failed []error
	for _, t := range locks {
		key, err := k.Open(ctx, t.Lock)
		if err == nil {
			return key, nil
		}
		failed = append(failed, fmt.Errorf("token %s: %w", t.ID, err))
	}
	return nil, errors.Join(failed...)
}
