package archive_test

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // for a signature that must be refused
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/archivetest"
)

// keys are the parties of TestSignatures: the keyring holds good, expired and revoked, and no other.
type keys struct {
	good, expired, revoked, other *openpgp.Entity
	now                           time.Time
}

func newKeys(t *testing.T) keys {
	t.Helper()
	k := keys{now: time.Date(2025, 8, 9, 12, 0, 0, 0, time.UTC)}
	born := k.now.AddDate(-2, 0, 0)
	clock := func() time.Time { return born }
	k.good = archivetest.NewKey(t, "Good", born)
	k.other = archivetest.NewKey(t, "Mallory", born)
	k.expired = archivetest.NewKeyWith(t, "Expired", packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: clock, KeyLifetimeSecs: 365 * 24 * 3600})
	k.revoked = archivetest.NewKey(t, "Revoked", born)
	err := k.revoked.RevokeKey(packet.KeyCompromised, "stolen", &packet.Config{Time: func() time.Time { return k.now.AddDate(0, -1, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestSignatures: one good signature is enough, whatever stands beside it, and nothing else is.
func TestSignatures(t *testing.T) {
	k := newKeys(t)
	sig := func(key *openpgp.Entity) archivetest.Signature { return archivetest.Signature{Key: key, Time: k.now} }
	sha1 := archivetest.Signature{Key: k.good, Time: k.now, Hash: crypto.SHA1}
	spoilt := archivetest.Signature{Key: k.good, Time: k.now, Spoil: true}
	lapsed := archivetest.Signature{Key: k.good, Time: k.now.Add(-48 * time.Hour), Lifetime: 24 * time.Hour}
	early := archivetest.Signature{Key: k.good, Time: k.now.Add(time.Hour)}
	old := archivetest.Signature{Key: k.expired, Time: k.now.AddDate(-1, -6, 0)} // made while the key was good
	ring := archivetest.Keyring(t, k.good, k.expired, k.revoked)
	for _, tc := range []struct {
		name       string
		signatures []archivetest.Signature
		want       string // "" if it is to be accepted
	}{
		{"good", []archivetest.Signature{sig(k.good)}, ""},
		{"unknown before good", []archivetest.Signature{sig(k.other), sig(k.good)}, ""},
		{"unknown behind good", []archivetest.Signature{sig(k.good), sig(k.other)}, ""},
		{"expired before good", []archivetest.Signature{sig(k.expired), sig(k.good)}, ""},
		{"revoked before good", []archivetest.Signature{sig(k.revoked), sig(k.good)}, ""},
		{"bad before good", []archivetest.Signature{spoilt, sig(k.good)}, ""},
		{"sha1 before good", []archivetest.Signature{sha1, sig(k.good)}, ""},
		{"sha512", []archivetest.Signature{{Key: k.good, Time: k.now, Hash: crypto.SHA512}}, ""},
		{"none", nil, "not signed by any key"},
		{"unknown", []archivetest.Signature{sig(k.other)}, "not signed by any key"},
		{"expired key", []archivetest.Signature{sig(k.expired)}, "key expired"},
		{"expired key, old signature", []archivetest.Signature{old}, "key expired"},
		{"revoked key", []archivetest.Signature{sig(k.revoked)}, "revoked key"},
		{"bad", []archivetest.Signature{spoilt}, "bad signature"},
		{"bad and unknown", []archivetest.Signature{spoilt, sig(k.other)}, "bad signature"},
		{"sha1", []archivetest.Signature{sha1}, "SHA-1 is too weak"},
		{"expired signature", []archivetest.Signature{lapsed}, "signature expired"},
		{"signature of the future", []archivetest.Signature{early}, "set the clock"},
		{"too many", slicesOf(sig(k.other), 40), "more than 16 signatures"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &archivetest.Archive{Now: k.now, Arches: []string{"amd64"}}
			b := archivetest.Clearsign(t, a.Release("trixie", nil), tc.signatures...)
			r, err := archive.VerifyRelease("InRelease", b, "trixie", ring, k.now)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.want == "" && !strings.HasPrefix(r.Signer, "Good "):
				t.Errorf("got signer %q, want Good", r.Signer)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func slicesOf(s archivetest.Signature, n int) []archivetest.Signature {
	var out []archivetest.Signature
	for range n {
		out = append(out, s)
	}
	return out
}

// TestSignedTextTricks changes a good message without its key.
func TestSignedTextTricks(t *testing.T) {
	k := newKeys(t)
	a := &archivetest.Archive{Now: k.now, Arches: []string{"amd64"}}
	ring := archivetest.Keyring(t, k.good)
	good := archivetest.Clearsign(t, a.Release("trixie", nil), archivetest.Signature{Key: k.good, Time: k.now})
	sub := func(old, new string) []byte {
		t.Helper()
		b := bytes.Replace(good, []byte(old), []byte(new), 1)
		if bytes.Equal(b, good) {
			t.Fatalf("the message has no %q", old)
		}
		return b
	}
	const begin = "-----BEGIN PGP SIGNATURE-----\n"
	for _, tc := range []struct {
		name string
		b    []byte
		want string
	}{
		{"lines end in CR LF", bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), ""},
		{"a line escaped without need", sub("Origin: Test\n", "- Origin: Test\n"), ""},
		{"spaces at the end of a line", sub("Origin: Test\n", "Origin: Test \t\n"), ""},
		{"a line more", sub("Origin: Test\n", "Origin: Test\nCodename: sid\n"), "bad signature"},
		{"a line less", sub("Origin: Test\n", ""), "bad signature"},
		{"a space in front", sub("Origin: Test\n", " Origin: Test\n"), "bad signature"},
		{"CR in a line", sub("Origin: Test\n", "Origin:\rTest\n"), "bad signature"},
		{"fields among the headers", sub("Hash: SHA256\n", "Hash: SHA256\nCodename: sid\n"), "malformed"},
		{"dash escapes declared off", sub("Hash: SHA256\n", "Hash: SHA256\nNotDashEscaped: yes\n"), "malformed"},
		{"text on the first line", sub("SIGNED MESSAGE-----\n", "SIGNED MESSAGE----- Codename: sid\n"), "malformed"},
		{"text between text and signature", sub(begin, "\nCodename: sid\n"+begin), "bad signature"},
		{"a second message in front", append(sub("Origin: Test", "Origin: Evil"), good...), "behind the signature"},
		{"a second message behind", append(bytes.Clone(good), good...), "behind the signature"},
		{"a message inside the text", sub("Origin: Test\n", string(good)), "behind the signature"},
		{"signature of another kind", bytes.ReplaceAll(good, []byte("PGP SIGNATURE"), []byte("PGP MESSAGE")), "malformed"},
		{"empty signature", append(bytes.Clone(good[:bytes.Index(good, []byte(begin))]), begin+"\n-----END PGP SIGNATURE-----\n"...), "not signed by any key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := archive.VerifyRelease("InRelease", tc.b, "trixie", ring, k.now)
			if tc.want == "" && (err != nil || r.Suite != "trixie") {
				t.Errorf("refused: %v", err)
			}
			if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

// TestWeakKey: a key that can be broken must not get into the keyring unnoticed.
func TestWeakKey(t *testing.T) {
	weak := archivetest.NewKeyWith(t, "Weak", packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 1024})
	_, err := archive.ReadKeyring(fstest.MapFS{"weak.gpg": {Data: archivetest.PublicKeys(t, weak)}})
	if err == nil || !strings.Contains(err.Error(), "weak.gpg") || !strings.Contains(err.Error(), "RSA key of 1024 bits") {
		t.Errorf("got %v, want the weak key refused", err)
	}
}
