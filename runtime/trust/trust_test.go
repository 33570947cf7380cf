package trust

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
)

const repo = "registry.example/team/app"

var (
	index    = image.Digest(sha256.Sum256([]byte("index")))
	manifest = image.Digest(sha256.Sum256([]byte("manifest")))
	other    = image.Digest(sha256.Sum256([]byte("other")))
)

// fake is a registry of one repository.
type fake struct {
	tags      map[string][]byte
	blobs     map[image.Digest][]byte
	referrers map[image.Digest][]byte
	err       error
}

func newFake() *fake {
	return &fake{map[string][]byte{}, map[image.Digest][]byte{}, map[image.Digest][]byte{}, nil}
}

func (f *fake) get(b []byte, ok bool) ([]byte, error) {
	if f.err != nil {
		return nil, f.err
	}
	if !ok {
		return nil, fs.ErrNotExist
	}
	return b, nil
}
func (f *fake) Manifest(_ context.Context, id string) ([]byte, error) {
	b, ok := f.tags[id]
	return f.get(b, ok)
}
func (f *fake) Document(_ context.Context, d image.Descriptor) ([]byte, error) {
	b, ok := f.blobs[d.Digest]
	return f.get(b, ok)
}
func (f *fake) Referrers(_ context.Context, d image.Digest) ([]byte, error) {
	b, ok := f.referrers[d]
	return f.get(b, ok)
}

func (f *fake) put(b []byte) image.Descriptor {
	d := image.Digest(sha256.Sum256(b))
	f.blobs[d] = b
	return image.Descriptor{Digest: d, Size: int64(len(b))}
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// layer adds a simple-signing layer.
func (f *fake) layer(payload, signature []byte) image.Descriptor {
	l := f.put(payload)
	l.MediaType = simpleSigning
	l.Annotations = map[string]string{signatureAnnotation: base64.StdEncoding.EncodeToString(signature)}
	return l
}

func manifestOf(layers ...image.Descriptor) []byte {
	return marshal(map[string]any{"schemaVersion": 2, "layers": layers})
}

func (f *fake) tag(d image.Digest, layers ...image.Descriptor) {
	f.tags["sha256-"+d.Hex()+".sig"] = manifestOf(layers...)
}

func (f *fake) refer(d image.Digest, artifact string, layers ...image.Descriptor) {
	m := f.put(manifestOf(layers...))
	m.ArtifactType = artifact
	f.referrers[d] = marshal(map[string]any{"schemaVersion": 2, "manifests": []image.Descriptor{m}})
}

func payload(repository string, d image.Digest) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, repository, d)
}

func sign(t testing.TB, k crypto.Signer, message []byte) []byte {
	t.Helper()
	var b []byte
	var err error
	if _, ok := k.(ed25519.PrivateKey); ok {
		b, err = k.Sign(rand.Reader, message, crypto.Hash(0))
	} else {
		sum := sha256.Sum256(message)
		b, err = k.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pemOf(t testing.TB, k crypto.Signer) []byte {
	t.Helper()
	b, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b})
}

// policy demands signatures by key for registry.example/team.
func policy(t testing.TB, extra string, keys ...crypto.Signer) *Policy {
	t.Helper()
	dir := t.TempDir()
	var names []string
	for i, k := range keys {
		names = append(names, fmt.Sprintf(`"%d.pub"`, i))
		write(t, filepath.Join(dir, fmt.Sprintf("%d.pub", i)), string(pemOf(t, k)))
	}
	write(t, filepath.Join(dir, "team.toml"), "[[trust]]\nprefix = \"registry.example/team\"\nrequire = \"signature\"\nkeys = ["+strings.Join(names, ",")+"]\n"+extra)
	p, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, p *Policy, name string, f *fake) (Verdict, error) {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return p.Check(t.Context(), r, &image.Image{Top: index, Digest: manifest}, f, func(err error) bool { return errors.Is(err, fs.ErrNotExist) })
}

// bundle is what cosign 3 attaches.
func bundle(t testing.TB, f *fake, k crypto.Signer, predicate string, d image.Digest) image.Descriptor {
	st := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`, d.Hex(), predicate)
	const kind = "application/vnd.in-toto+json"
	sig := sign(t, k, fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(st), st))
	l := f.put(marshal(map[string]any{"mediaType": bundlePrefix + ".v0.3+json", "dsseEnvelope": map[string]any{"payloadType": kind, "payload": st, "signatures": []any{map[string]any{"sig": sig}}}}))
	l.MediaType = bundlePrefix + ".v0.3+json"
	return l
}

const cosignPredicate = "https://sigstore.dev/cosign/sign/v1"

// TestSigned: each way a good signature may be found.
func TestSigned(t *testing.T) {
	k := newKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		keys  []crypto.Signer
		extra string
		make  func(*fake)
	}{
		"tag, index": {[]crypto.Signer{k}, "", func(f *fake) { f.tag(index, f.layer(payload(repo, index), sign(t, k, payload(repo, index)))) }},
		"tag, image": {[]crypto.Signer{k}, "", func(f *fake) { f.tag(manifest, f.layer(payload(repo, manifest), sign(t, k, payload(repo, manifest)))) }},
		"referrer": {[]crypto.Signer{k}, "", func(f *fake) {
			f.refer(index, "application/vnd.dev.cosign.artifact.sig.v1+json", f.layer(payload(repo, index), sign(t, k, payload(repo, index))))
		}},
		"bundle": {[]crypto.Signer{k}, "identity = \"any\"\n", func(f *fake) {
			f.refer(index, "application/vnd.dev.sigstore.bundle.v0.3+json", bundle(t, f, k, cosignPredicate, index))
		}},
		"second key": {[]crypto.Signer{newKey(t), k}, "", func(f *fake) { f.tag(index, f.layer(payload(repo, index), sign(t, k, payload(repo, index)))) }},
		"rsa":        {[]crypto.Signer{rsaKey}, "", func(f *fake) { f.tag(index, f.layer(payload(repo, index), sign(t, rsaKey, payload(repo, index)))) }},
		"ed25519":    {[]crypto.Signer{edKey}, "", func(f *fake) { f.tag(index, f.layer(payload(repo, index), sign(t, edKey, payload(repo, index)))) }},
		"with a tag": {[]crypto.Signer{k}, "", func(f *fake) { f.tag(index, f.layer(payload(repo+":1", index), sign(t, k, payload(repo+":1", index)))) }},
		"copied": {[]crypto.Signer{k}, "identity = \"any\"\n", func(f *fake) {
			f.tag(index, f.layer(payload("a.example/b", index), sign(t, k, payload("a.example/b", index))))
		}},
		"behind bad one": {[]crypto.Signer{k}, "", func(f *fake) {
			f.tag(index, f.layer(payload(repo, other), []byte("x")), f.layer(payload(repo, index), sign(t, k, payload(repo, index))))
		}},
	} {
		f := newFake()
		c.make(f)
		v, err := check(t, policy(t, c.extra, c.keys...), repo+":1", f)
		r, _ := ref.Parse(repo + ":1")
		if err != nil || !strings.HasSuffix(v.Signer(), fmt.Sprintf("%d.pub", len(c.keys)-1)) || !v.Covers(r, &image.Image{Top: index, Digest: manifest}) {
			t.Errorf("%s: %q %v", name, v.Signer(), err)
		}
		// The same registry does not satisfy who holds another key.
		if v, err := check(t, policy(t, c.extra, newKey(t)), repo+":1", f); !errors.Is(err, ErrNotTrusted) || v != (Verdict{}) {
			t.Errorf("%s, another key: %v", name, err)
		}
	}
}

// TestNotSigned: everything a hostile registry may put in the place of a signature is refused, with the reason.
func TestNotSigned(t *testing.T) {
	k, foreign := newKey(t), newKey(t)
	good := payload(repo, index)
	for name, c := range map[string]struct {
		make func(*fake)
		want string
	}{
		"nothing":          {func(*fake) {}, "has none: have it signed (cosign sign"},
		"another key":      {func(f *fake) { f.tag(index, f.layer(good, sign(t, foreign, good))) }, "by another key"},
		"of another image": {func(f *fake) { f.tag(index, f.layer(payload(repo, other), sign(t, k, payload(repo, other)))) }, "a signature of another image"},
		"changed payload":  {func(f *fake) { f.tag(index, f.layer(good, sign(t, k, payload(repo, other)))) }, "or of something else"},
		"for another name": {func(f *fake) {
			f.tag(index, f.layer(payload("registry.example/team/debug", index), sign(t, k, payload("registry.example/team/debug", index))))
		}, `identity = "any"`},
		"for no name": {func(f *fake) { f.tag(index, f.layer(payload("", index), sign(t, k, payload("", index)))) }, "names no repository"},
		"bundle, no name": {func(f *fake) {
			f.refer(index, "application/vnd.dev.sigstore.bundle.v0.3+json", bundle(t, f, k, cosignPredicate, index))
		}, "names no repository"},
		"no annotation": {func(f *fake) { l := f.layer(good, nil); f.tag(index, l) }, "without its annotation"},
		"no base64":     {func(f *fake) { l := f.layer(good, nil); l.Annotations[signatureAnnotation] = "%"; f.tag(index, l) }, "without its annotation"},
		"other type": {func(f *fake) {
			b := []byte(strings.Replace(string(good), "cosign container image signature", "sbom", 1))
			f.tag(index, f.layer(b, sign(t, k, b)))
		}, "a signature of type"},
		"payload missing":   {func(f *fake) { l := f.layer(good, sign(t, k, good)); delete(f.blobs, l.Digest); f.tag(index, l) }, "is missing"},
		"payload exchanged": {func(f *fake) { l := f.layer(good, sign(t, k, good)); f.blobs[l.Digest] = []byte("x"); f.tag(index, l) }, " is sha256:"},
		"large payload":     {func(f *fake) { l := f.layer(make([]byte, maxPayload+1), nil); f.tag(index, l) }, "a signature of 65537 bytes"},
		"no manifest":       {func(f *fake) { f.tags["sha256-"+index.Hex()+".sig"] = []byte("<html>") }, "is no manifest"},
		"no layers":         {func(f *fake) { f.tag(index) }, "has none"},
		"attestation": {func(f *fake) {
			f.refer(index, "application/vnd.dev.sigstore.bundle.v0.3+json", bundle(t, f, k, "https://slsa.dev/provenance/v1", index))
		}, "not a signature"},
		"bundle, other": {func(f *fake) {
			f.refer(index, "application/vnd.dev.sigstore.bundle.v0.3+json", bundle(t, f, k, cosignPredicate, other))
		}, "a bundle for another image"},
		"bundle, forged": {func(f *fake) {
			f.refer(index, "application/vnd.dev.sigstore.bundle.v0.3+json", bundle(t, f, foreign, cosignPredicate, index))
		}, "by another key"},
		"referrers, no JSON": {func(f *fake) { f.referrers[index] = []byte("x") }, "is no index"},
		"many": {func(f *fake) {
			var ls []image.Descriptor
			for range maxSignatures + 1 {
				ls = append(ls, f.layer(good, []byte("x")))
			}
			f.tag(index, ls...)
		}, "none of"},
		"cannot be asked": {func(f *fake) { f.err = errors.New("the cable is out") }, "the cable is out"},
	} {
		f := newFake()
		c.make(f)
		v, err := check(t, policy(t, "", k), repo+":1", f)
		if err == nil || !strings.Contains(err.Error(), c.want) || v != (Verdict{}) {
			t.Errorf("%s: error %v, want %q in it", name, err, c.want)
		}
	}
}

// TestPrefix: which rule counts.
func TestPrefix(t *testing.T) {
	top := t.TempDir()
	usr, etc := filepath.Join(top, "usr"), filepath.Join(top, "etc")
	rule := func(prefix, require string) string {
		return fmt.Sprintf("[[trust]]\nprefix = %q\nrequire = %q\n", prefix, require)
	}
	write(t, usr+"/default.toml", rule("", "accept")+rule("bad.example", "reject"))
	write(t, usr+"/masked.toml", rule("masked.example", "reject"))
	write(t, usr+"/replaced.toml", rule("replaced.example", "reject"))
	write(t, etc+"/masked.toml", "")
	write(t, etc+"/replaced.toml", rule("else.example", "reject"))
	write(t, etc+"/more.toml", rule("bad.example/good", "accept")+rule("docker.io/library", "reject")+rule("host.example:5000", "reject"))
	write(t, etc+"/.more.toml.swp", "no policy")
	p, err := Read(usr, etc)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"a.example/x": true, "bad.example/x": false, "bad.example/good/x": true, "bad.example/goods": false, "bad.example.org/x": true,
		"masked.example/x": true, "replaced.example/x": true, "else.example/x": false, "busybox": false, "docker.io/other/x": true,
		"host.example:5000/x": false, "host.example:50001/x": true, "host.example/x": true,
	} {
		if _, err := check(t, p, name, nil); (err == nil) != want || err != nil && !errors.Is(err, ErrNotTrusted) {
			t.Errorf("%s: %v, want accepted %v", name, err, want)
		}
	}
	if _, err := check(t, &Policy{}, "a.example/x", nil); !errors.Is(err, ErrNotTrusted) {
		t.Errorf("without a policy: %v", err)
	}
	write(t, etc+"/default.toml", rule("", "reject"))
	if p, err = Read(usr, etc); err != nil {
		t.Fatal(err)
	}
	if _, err := check(t, p, "a.example/x", nil); !errors.Is(err, ErrNotTrusted) {
		t.Errorf("default reject: %v", err)
	}
}

// TestBadPolicy: what is not understood lets nothing in.
func TestBadPolicy(t *testing.T) {
	pub := string(pemOf(t, newKey(t)))
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signed := "[[trust]]\nprefix = \"a.example\"\nrequire = \"signature\"\nkeys = [\"k\"]\n"
	for name, c := range map[string]struct{ text, key, want string }{
		"unknown key":   {"[[trust]]\nprefix = \"\"\nrequire = \"accept\"\nkey = \"x\"\n", "", "unknown key trust.key"},
		"unknown table": {"[trusted]\n", "", "unknown key trusted"},
		"no require":    {"[[trust]]\nprefix = \"\"\n", "", `require "": want`},
		"accept, keys":  {"[[trust]]\nprefix = \"\"\nrequire = \"accept\"\nkeys = [\"k\"]\n", pub, "keys and identity need"},
		"no keys":       {"[[trust]]\nprefix = \"\"\nrequire = \"signature\"\n", "", "no keys"},
		"missing key":   {signed, "", "read key"},
		"no PEM":        {signed, "ssh-ed25519 AAAA", "no PEM block"},
		"private key":   {signed, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "want one PUBLIC KEY"},
		"two keys":      {signed, pub + pub, "want one PUBLIC KEY"},
		"short RSA":     {signed, string(pemOf(t, small)), "1024 bits"},
		"P-224":         {signed, string(pemOf(t, p224)), "too weak"},
		"identity":      {signed + "identity = \"x\"\n", pub, "want repository or any"},
		"scheme":        {"[[trust]]\nprefix = \"https://a.example\"\nrequire = \"accept\"\n", "", "without scheme"},
		"slash":         {"[[trust]]\nprefix = \"a.example/\"\nrequire = \"accept\"\n", "", "/ at the end"},
		"upper case":    {"[[trust]]\nprefix = \"A.example\"\nrequire = \"accept\"\n", "", "lower case"},
		"no host":       {"[[trust]]\nprefix = \"library/busybox\"\nrequire = \"accept\"\n", "", "no registry's name"},
		"other hub":     {"[[trust]]\nprefix = \"index.docker.io\"\nrequire = \"accept\"\n", "", "write docker.io"},
		"twice":         {"[[trust]]\nprefix = \"\"\nrequire = \"accept\"\n[[trust]]\nprefix = \"\"\nrequire = \"reject\"\n", "", "has another rule"},
		"no TOML":       {"[[trust]\n", "", "team.toml"},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "team.toml"), c.text)
		if c.key != "" {
			write(t, filepath.Join(dir, "k"), c.key)
		}
		if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", name, err, c.want)
		}
	}
}

// FuzzSignature: nothing a stranger sends is a signature, and nothing breaks the reader.
func FuzzSignature(f *testing.F) {
	k := newKey(f)
	p := policy(f, "identity = \"any\"\n", k)
	s := newFake()
	f.Add(payload(repo, index), "MEQCIA==", simpleSigning)
	l := bundle(f, s, newKey(f), cosignPredicate, index)
	f.Add(s.blobs[l.Digest], "", l.MediaType)
	f.Fuzz(func(t *testing.T, b []byte, annotation, mediaType string) {
		s := newFake()
		l := s.put(b)
		l.MediaType, l.Annotations = mediaType, map[string]string{signatureAnnotation: annotation}
		s.tag(index, l)
		s.tags["sha256-"+manifest.Hex()+".sig"] = b
		if v, err := check(t, p, repo, s); err == nil {
			t.Errorf("%+v", v)
		}
	})
}
