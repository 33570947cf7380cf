package secret

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
)

func newKey(t *testing.T) Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// theirs is age's own writer.
func theirs(t *testing.T, plain []byte, armored bool, recipients ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser = nopCloser{&out}
	if armored {
		w = armor.NewWriter(&out)
	}
	e, err := age.Encrypt(w, recipients...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// sizes are around the ends of chunks.
var sizes = []int{0, 1, 40, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, 2*chunkSize + 7}

// age reads what we write, and we read what it writes, keys included.
func TestAgainstAge(t *testing.T) {
	k, other := newKey(t), newKey(t)
	recipient, err := age.ParseX25519Recipient(k.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	identity, err := age.ParseX25519Identity(k.Identity())
	if err != nil {
		t.Fatal(err)
	}
	second, err := age.ParseX25519Recipient(other.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range sizes {
		plain := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
		for _, armored := range []bool{false, true} {
			got, err := k.Decrypt(theirs(t, plain, armored, second, recipient))
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, armored %v: got %d, %v", n, armored, len(got), err)
			}
		}
		text, err := Encrypt(plain, other.Recipient(), k.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		r, err := age.Decrypt(armor.NewReader(strings.NewReader(text)), identity)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: age reads %d, %v", n, len(got), err)
		}
		if err := Check([]byte(text)); err != nil || !Armored(text) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	generated, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseKey("# created: now\n# public key: " + generated.Recipient().String() + "\n" + generated.String() + "\n")
	if err != nil || again.Recipient() != generated.Recipient().String() || again.Identity() != generated.String() {
		t.Errorf("got %s, %v, want %s", again.Recipient(), err, generated.Recipient())
	}
}

// Whatever byte is changed, and wherever the file ends, nothing is opened.
func TestTampered(t *testing.T) {
	k := newKey(t)
	recipient, err := age.ParseX25519Recipient(k.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	whole := theirs(t, []byte("hunter2 is a secret"), false, recipient)
	for i := range whole {
		broken := bytes.Clone(whole)
		broken[i] ^= 1
		if got, err := k.Decrypt(broken); err == nil || len(got) > 0 || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("byte %d changed: got %q, %v", i, got, err)
		}
		if got, err := k.Decrypt(whole[:i]); err == nil || len(got) > 0 {
			t.Errorf("%d bytes: got %q", i, got)
		}
	}
	if _, err := k.Decrypt(append(bytes.Clone(whole), 0)); err == nil {
		t.Error("one byte more: no error")
	}
	if _, err := newKey(t).Decrypt(whole); !errors.Is(err, ErrNotForKey) {
		t.Errorf("another key: got %v", err)
	}
	large := theirs(t, bytes.Repeat([]byte("x"), 2*chunkSize), false, recipient)
	if got, err := k.Decrypt(large[:len(large)-chunkSize-16]); err == nil || len(got) > 0 {
		t.Errorf("without the last chunk: got %d bytes", len(got))
	}
}

func TestKeys(t *testing.T) {
	k := newKey(t)
	for _, bad := range []string{"", "AGE-SECRET-KEY-1", k.Recipient(), strings.ToLower(k.Identity()), k.Identity()[:20], k.Identity() + "\n" + k.Identity(), strings.Replace(k.Identity(), "1", "2", 1)} {
		if _, err := ParseKey(bad); err == nil || len(bad) > 30 && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	for _, bad := range []string{"", "age1", strings.ToUpper(k.Recipient()), k.Recipient() + "q", "age1" + strings.Repeat("q", 58)} {
		if _, err := Encrypt(nil, bad); err == nil {
			t.Errorf("recipient %q: no error", bad)
		}
	}
}

func FuzzDecrypt(f *testing.F) {
	k, err := ParseKey("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX") // age's own example key
	if err != nil {
		f.Fatal(err)
	}
	text, err := Encrypt([]byte("x"), k.Recipient())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(text))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := k.Decrypt(b); err != nil && len(got) > 0 {
			t.Errorf("got %q with %v", got, err)
		}
		if err := Check(b); err == nil && len(b) < 100 {
			t.Errorf("%q passes", b)
		}
	})
}
