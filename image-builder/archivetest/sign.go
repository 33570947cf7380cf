package archivetest

import (
	"bytes"
	"crypto"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/proa-os/proa/image-builder/archive"
)

// NewKey makes a signing key.
func NewKey(t testing.TB, name string, created time.Time) *openpgp.Entity {
	t.Helper()
	return NewKeyWith(t, name, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return created }})
}

// NewKeyWith makes a signing key of any kind.
func NewKeyWith(t testing.TB, name string, config packet.Config) *openpgp.Entity {
	t.Helper()
	key, err := openpgp.NewEntity(name, "", "archive@example.org", &config)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Keyring is the public half of keys, as read from a directory.
func Keyring(t testing.TB, keys ...*openpgp.Entity) archive.Keyring {
	t.Helper()
	k, err := archive.ReadKeyring(fstest.MapFS{"test.gpg": {Data: PublicKeys(t, keys...)}})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// PublicKeys is the content of a keyring file.
func PublicKeys(t testing.TB, keys ...*openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, key := range keys {
		if err := key.Serialize(&b); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// Signature says how to sign.
type Signature struct {
	Key      *openpgp.Entity
	Time     time.Time
	Hash     crypto.Hash   // SHA-256 by default
	Lifetime time.Duration // 0: it never expires
	Spoil    bool          // sign something else
}

// Clearsign returns a text in OpenPGP's cleartext signature framework (RFC 9580, 7) with any number of signatures.
func Clearsign(t testing.TB, text string, signatures ...Signature) []byte {
	t.Helper()
	text = strings.TrimSuffix(text, "\n")
	b := bytes.NewBufferString("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n")
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "-") {
			b.WriteString("- ")
		}
		b.WriteString(line + "\n")
	}
	w, err := armor.Encode(b, openpgp.SignatureType, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range signatures {
		sig, err := s.sign(text)
		if err == nil {
			err = sig.Serialize(w)
		}
		if err != nil {
			t.Fatal(fmt.Errorf("sign: %w", err))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), '\n')
}

func (s Signature) sign(text string) (*packet.Signature, error) {
	if s.Hash == 0 {
		s.Hash = crypto.SHA256
	}
	lifetime := uint32(s.Lifetime / time.Second)
	key := s.Key.PrivateKey
	sig := &packet.Signature{
		Version: key.Version, SigType: packet.SigTypeText, PubKeyAlgo: key.PubKeyAlgo, Hash: s.Hash,
		CreationTime: s.Time, SigLifetimeSecs: &lifetime,
		IssuerKeyId: &key.KeyId, IssuerFingerprint: key.Fingerprint,
	}
	h := s.Hash.New()
	h.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
	if s.Spoil {
		h.Write([]byte("something else"))
	}
	salted := false // go-crypto has no salt for SHA-1
	return sig, sig.Sign(h, key, &packet.Config{Time: func() time.Time { return s.Time }, NonDeterministicSignaturesViaNotation: &salted})
}
