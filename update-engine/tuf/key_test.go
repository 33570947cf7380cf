package tuf_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/update-engine/tuf"
)

// Keys of all kinds of the specification sign, go-tuf's signatures being the measure; with a byte changed they do not.
func TestKeyKinds(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pss, err := signature.LoadRSAPSSSigner(long, crypto.SHA256, nil)
	if err != nil {
		t.Fatal(err)
	}
	short, err := signature.LoadECDSASigner(p256, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]signature.Signer{"ecdsa": short, "rsa": pss} {
		f := newForge(t)
		v := f.visitor()
		f.next("root")
		old := f.keys["root"]
		f.replaceKeys("root", "root-new")
		f.keys["root"] = append(f.keys["root"], s)
		if err := f.root.Signed.AddKey(public(t, s), "root"); err != nil {
			t.Fatal(err)
		}
		f.putRoot(old...)
		f.next("root")
		f.putRoot()
		if _, err := metadata.Root().FromBytes(f.files["metadata/3.root.json"]); err != nil {
			t.Fatal(err)
		}
		f.release()
		v.ok(name, f)

		f.next("root")
		f.putRoot()
		b := string(f.files["metadata/4.root.json"])
		sig := fmt.Sprintf("%x", []byte(f.root.Signatures[1].Signature))
		f.put("4.root.json", []byte(strings.Replace(b, sig, sig[:len(sig)-2]+"00", 1)))
		v.refused(name+", changed", f, tuf.Tampered, "4.root.json")
	}
}

// A key that is not what it says it is, or nothing that we know, signs nothing; the others of its role do.
func TestUnusableKeys(t *testing.T) {
	for what, spoil := range map[string]func(k *metadata.Key){
		"a short one":    func(k *metadata.Key) { k.Value.PublicKey = k.Value.PublicKey[2:] },
		"not hex":        func(k *metadata.Key) { k.Value.PublicKey = "x" + k.Value.PublicKey[1:] },
		"another kind":   func(k *metadata.Key) { k.Type = "sphincs" },
		"another scheme": func(k *metadata.Key) { k.Scheme = "rsassa-pss-sha256" },
		"not PEM":        func(k *metadata.Key) { k.Type, k.Scheme = "rsa", "rsassa-pss-sha256" },
	} {
		f := newForge(t)
		v := f.visitor()
		f.next("root")
		id := keyID(t, f.keys["timestamp"][0])
		spoil(f.root.Signed.Keys[id])
		f.putRoot()
		v.refused(what, f, tuf.Garbage, "timestamp.json", "no usable keys")
		f.next("root", "timestamp")
		f.addKey("timestamp", "timestamp-2")
		f.putRoot()
		f.publish()
		v.ok(what+", and another", f)
	}
}

// Fields that we do not know are a part of what is signed, whatever is in them; go-tuf signs here.
func TestUnknownFields(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	strange := map[string]any{
		"x-\"quoted\"\\": "a\nline\u2028, a\ttab, \x00, <html> & ü 🙂", "é": []any{nil, true, false, map[string]any{}, []any{}}, "Z": 9007199254740993, "a": -1, "": "",
	}
	f.root.UnrecognizedFields = strange
	f.root.Signed.UnrecognizedFields = strange
	f.targets.Signed.UnrecognizedFields = strange
	f.snapshot.Signed.UnrecognizedFields = strange
	f.timestamp.Signed.UnrecognizedFields = strange
	f.plan.Signed.UnrecognizedFields = strange
	f.root.Signed.Roles["root"].UnrecognizedFields = strange
	f.next("root")
	f.putRoot()
	f.release()
	v.ok("strange fields", f)
	f.next("timestamp")
	f.publish()
	b := string(f.files["metadata/timestamp.json"])
	f.put("timestamp.json", []byte(strings.Replace(b, "tab", "tap", 1)))
	v.refused("a changed one", f, tuf.Tampered, "timestamp.json")
}
