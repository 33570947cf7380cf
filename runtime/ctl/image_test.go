package ctl

import (
	"archive/tar"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/runtime/store"
)

// small pushes an image of two layers and pulls it.
func (m *machine) small(name string) (digest string) {
	m.t.Helper()
	digest, err := m.reg.Push(name, registrytest.Image{
		Layers: [][]registrytest.File{{{Name: "etc/"}, {Name: "etc/os-release", Body: "ID=test\n"}}, {{Name: "www/"}, {Name: "www/index.html", Body: name}}},
		Config: v1.Config{Cmd: []string{"/x"}},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return digest
}

func (m *machine) digests() map[string]string {
	m.t.Helper()
	var list []store.Record
	if err := json.Unmarshal([]byte(m.must("images", "--json")), &list); err != nil {
		m.t.Fatal(err)
	}
	out := make(map[string]string)
	for _, r := range list {
		out[r.Name] = r.Top.String()
	}
	return out
}

// judge runs a foreign program.
func judge(t *testing.T, name string, args ...string) string {
	t.Helper()
	c := testenv.Judges(t).Command(t.Context(), name, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, errs.String())
	}
	return out.String()
}

// TestSaveLoad: what save writes load reads, with the same digest, from archives and directories, and without the registry.
func TestSaveLoad(t *testing.T) {
	m := bareMachine(t)
	want := m.small("small:1")
	name := m.reg.Addr + "/small:1"
	m.must("pull", "--tls-verify=false", name)
	file, dir := filepath.Join(m.dir, "a.tar"), filepath.Join(m.dir, "layout")
	m.must("save", "--tls-verify=false", "-o", file, name) // fetches the compressed layers again
	m.reg.Close()
	m.must("save", "-o", dir, "--dir", name) // has them now
	if i, err := os.Stat(file); err != nil || i.Mode().Perm() != 0o644 {
		t.Errorf("%v %v", i, err)
	}
	for _, input := range []string{file, dir} {
		m.must("rmi", name)
		if d := m.digests(); len(d) != 0 {
			t.Fatal(d)
		}
		m.must("load", "-i", input)
		if d := m.digests(); d[name] != want || len(d) != 1 {
			t.Errorf("%s: %v, want %s", input, d, want)
		}
	}
	// Kept blobs go when asked for, and with the image.
	m.must("gc", "--blobs")
	m.mustFail("not kept here", "save", "-o", file+"2", name)
	m.must("load", "-i", file, "--name", "example.org/other:2")
	m.must("rmi", name, "example.org/other:2")
	for _, d := range []string{"layers", "blobs/sha256", "images", "partial", "tmp"} {
		if es, _ := os.ReadDir(filepath.Join(m.dir, "store", d)); len(es) != 0 {
			t.Errorf("%s holds %v after rmi", d, es)
		}
	}
	m.mustFail("neither index.json", "load", "-i", m.dir)
}

// TestHostileArchive: an archive that lies about its content brings nothing in.
func TestHostileArchive(t *testing.T) {
	m := bareMachine(t)
	m.small("small:1")
	name := m.reg.Addr + "/small:1"
	m.must("pull", "--tls-verify=false", "--keep-blobs", name)
	file := filepath.Join(m.dir, "a.tar")
	m.must("save", "-o", file, name)
	m.must("rmi", name)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		change func(h *tar.Header, b []byte) []byte
		want   string
	}{
		"layer": {func(h *tar.Header, b []byte) []byte {
			if b[0] == 0x1f {
				b[len(b)/2] ^= 1
			}
			return b
		}, "expected sha256"},
		"document":  {func(h *tar.Header, b []byte) []byte { return bytes.Replace(b, []byte(`"linux"`), []byte(`"linuz"`), 1) }, "expected sha256"},
		"no layout": {func(h *tar.Header, b []byte) []byte { h.Name = strings.TrimPrefix(h.Name, "blobs/"); return b }, "not in the archive"},
		"links":     {func(h *tar.Header, b []byte) []byte { return b }, ""},
		"names":     {func(h *tar.Header, b []byte) []byte { return bytes.ReplaceAll(b, []byte("small:1"), []byte("SMALL:1")) }, "image name"},
	} {
		var out bytes.Buffer
		tr, tw := tar.NewReader(bytes.NewReader(good)), tar.NewWriter(&out)
		for {
			h, err := tr.Next()
			if err != nil {
				break
			}
			var b bytes.Buffer
			b.ReadFrom(tr)
			body := c.change(h, b.Bytes())
			h.Size = int64(len(body))
			if what == "links" && strings.HasPrefix(h.Name, "blobs/") {
				h.Typeflag, h.Linkname, h.Size, body = tar.TypeSymlink, "/etc/passwd", 0, nil
			}
			if err := tw.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			tw.Write(body)
		}
		tw.Close()
		bad := filepath.Join(m.dir, "bad.tar")
		if err := os.WriteFile(bad, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		m.mustFail(c.want, "load", "-i", bad)
		if es, _ := os.ReadDir(filepath.Join(m.dir, "store/images")); len(es) != 0 {
			t.Errorf("%s: images holds %v", what, es)
		}
	}
}

// TestSkopeo: skopeo reads what we write, and we read what it writes.
func TestSkopeo(t *testing.T) {
	testenv.Judges(t)
	m := bareMachine(t)
	m.small("small:1")
	name := m.reg.Addr + "/small:1"
	m.must("pull", "--tls-verify=false", "--keep-blobs", name)
	at := func(n string) string { return filepath.Join(m.dir, n) }
	m.must("save", "-o", at("a.tar"), name)
	m.must("save", "-o", at("layout"), "--dir", name)
	for _, src := range []string{"oci-archive:" + at("a.tar"), "oci:" + at("layout"), "docker-archive:" + at("a.tar")} {
		var info struct{ Layers []string }
		if err := json.Unmarshal([]byte(judge(t, "skopeo", "inspect", src)), &info); err != nil || len(info.Layers) != 2 {
			t.Errorf("%s: %d layers, %v", src, len(info.Layers), err)
		}
	}
	m.must("rmi", name)
	policy := []string{"--insecure-policy", "copy", "--src-tls-verify=false", "docker://" + name}
	for _, dst := range []string{"oci:" + at("by-skopeo"), "oci-archive:" + at("by-skopeo.oci"), "docker-archive:" + at("by-skopeo.docker") + ":example.org/x:1"} {
		judge(t, "skopeo", append(policy, dst)...)
		_, file, _ := strings.Cut(dst, ":")
		file, _, _ = strings.Cut(file, ":")
		m.must("load", "-i", file, "--name", "example.org/x:1")
		if out := m.must("inspect", "example.org/x:1"); !strings.Contains(out, `"/x"`) {
			t.Errorf("%s: %s", dst, out)
		}
		if layers, _ := os.ReadDir(filepath.Join(m.dir, "store/layers")); len(layers) != 2 {
			t.Errorf("%s: %d layers", dst, len(layers))
		}
		m.must("rmi", "example.org/x:1")
	}
}

// TestPush: tag, push and pull again; the digest is the same.
func TestPush(t *testing.T) {
	m := bareMachine(t)
	want := m.small("small:1")
	m.must("pull", "--tls-verify=false", m.reg.Addr+"/small:1")
	m.must("tag", m.reg.Addr+"/small:1", m.reg.Addr+"/copy/of:2")
	if got := strings.TrimSpace(m.must("push", "--tls-verify=false", m.reg.Addr+"/copy/of:2")); got != want {
		t.Errorf("pushed %s, want %s", got, want)
	}
	m.must("rmi", m.reg.Addr+"/small:1", m.reg.Addr+"/copy/of:2")
	m.must("pull", "--tls-verify=false", m.reg.Addr+"/copy/of:2")
	if got := m.digests()[m.reg.Addr+"/copy/of:2"]; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	m.clean()
}

// TestDebianRegistry: Debian's docker-registry with passwords; login, push, pull, resumed pull of a part, logout.
func TestDebianRegistry(t *testing.T) {
	judges := testenv.Judges(t)
	m := bareMachine(t)
	server, err := registrytest.StartDebian(t.Context(), judges, m.dir, "ann", "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	addr := server.Addr
	want := m.small("small:1")
	m.must("pull", "--tls-verify=false", "--keep-blobs", m.reg.Addr+"/small:1")
	m.must("tag", m.reg.Addr+"/small:1", addr+"/team/small:1")
	m.mustFail("containerctl login "+addr, "push", "--tls-verify=false", addr+"/team/small:1")
	m.loginFails("wrong", addr)
	if out, errs, code := m.ctlIn("secret\n", "login", "--tls-verify=false", "-u", "ann", "--password-stdin", addr); code != 0 {
		t.Fatal(out, errs)
	}
	m.must("push", "--tls-verify=false", addr+"/team/small:1")
	m.must("rmi", m.reg.Addr+"/small:1", addr+"/team/small:1")
	m.must("pull", "--tls-verify=false", addr+"/team/small:1")
	if got := m.digests()[addr+"/team/small:1"]; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	m.must("logout", addr)
	m.mustFail("containerctl login", "pull", "--tls-verify=false", addr+"/team/small:1")
}

func (m *machine) loginFails(password, addr string) {
	m.t.Helper()
	if out, errs, code := m.ctlIn(password+"\n", "login", "--tls-verify=false", "-u", "ann", "--password-stdin", addr); code == 0 || !strings.Contains(errs, "does not take them") {
		m.t.Errorf("login with a wrong password: %d %s%s", code, out, errs)
	}
	if _, err := os.Stat(filepath.Join(m.dir, "auth.json")); !errors.Is(err, os.ErrNotExist) {
		m.t.Errorf("a refused password is kept: %v", err)
	}
}

func (m *machine) ctlIn(in string, args ...string) (string, string, int) {
	m.t.Helper()
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), "CTL_DIR="+m.dir)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(in), &out, &errs
	if err := c.Run(); c.ProcessState == nil {
		m.t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// cosignKey makes a key and writes its public half as cosign does.
func cosignKey(t *testing.T, file string) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := cryptoutils.MarshalPublicKeyToPEM(k.Public())
	if err == nil {
		err = os.WriteFile(file, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign attaches a signature as cosign does, with the libraries cosign is made of.
func (m *machine) sign(key *ecdsa.PrivateKey, repository, digest string) {
	m.t.Helper()
	d, err := name.NewDigest(m.reg.Addr+"/"+repository+"@"+digest, name.Insecure)
	if err != nil {
		m.t.Fatal(err)
	}
	text, err := payload.Cosign{Image: d}.MarshalJSON()
	if err != nil {
		m.t.Fatal(err)
	}
	signer, err := signature.LoadECDSASigner(key, crypto.SHA256)
	if err != nil {
		m.t.Fatal(err)
	}
	sig, err := signer.SignMessage(bytes.NewReader(text))
	if err != nil {
		m.t.Fatal(err)
	}
	img, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{
		Layer:       static.NewLayer(text, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)}})
	if err == nil {
		_, err = m.reg.PushImage(repository+":"+strings.Replace(digest, ":", "-", 1)+".sig", img)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// TestTrust: under a prefix that demands signatures an image comes in only with a signature by the right key on its digest.
func TestTrust(t *testing.T) {
	m := bareMachine(t)
	trust := filepath.Join(m.dir, "trust")
	if err := os.MkdirAll(trust, 0o755); err != nil {
		t.Fatal(err)
	}
	key := cosignKey(t, filepath.Join(trust, "team.pub"))
	foreign := cosignKey(t, filepath.Join(m.dir, "other.pub"))
	policy := fmt.Sprintf("[[trust]]\nprefix = %q\nrequire = \"signature\"\nkeys = [\"team.pub\"]\n[[trust]]\nprefix = %q\nrequire = \"reject\"\n", m.reg.Addr+"/team", m.reg.Addr+"/bad")
	if err := os.WriteFile(filepath.Join(trust, "team.toml"), []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	digest := m.small("team/app:1")
	app := m.reg.Addr + "/team/app"
	m.mustFail("has none", "pull", "--tls-verify=false", app+":1")
	m.mustFail("rejects the prefix", "pull", "--tls-verify=false", m.reg.Addr+"/bad/app:1x")
	m.sign(foreign, "team/app", digest)
	m.mustFail("by another key", "pull", "--tls-verify=false", app+":1")
	m.nothing()
	m.sign(key, "team/app", digest)
	m.must("pull", "--tls-verify=false", app+":1")
	m.must("pull", "--tls-verify=false", app+"@"+digest)
	var list []store.Record
	if err := json.Unmarshal([]byte(m.must("images", "--json")), &list); err != nil || len(list) != 2 || !strings.HasSuffix(list[0].Signer, "team.pub") {
		t.Errorf("%+v %v", list, err)
	}
	// The tag moves to an image that nobody signed.
	m.reg.Push("team/app:1", registrytest.Image{Layers: [][]registrytest.File{{{Name: "evil"}}}})
	m.mustFail("has none", "pull", "--tls-verify=false", app+":1")
	// A signature that was made for another name of the same signer, and images that are renamed or loaded into the prefix.
	debug := m.small("team/debug:1")
	m.sign(key, "team/debug", debug)
	m.must("pull", "--tls-verify=false", m.reg.Addr+"/team/debug:1")
	m.copySignature("team/debug", "team/app", debug)
	m.mustFail("not for "+app, "pull", "--tls-verify=false", app+"@"+debug)
	m.small("free:1")
	m.must("pull", "--tls-verify=false", "--keep-blobs", m.reg.Addr+"/free:1")
	m.mustFail("not trusted", "tag", m.reg.Addr+"/free:1", app+":2")
	m.must("save", "-o", m.dir+"/free.tar", m.reg.Addr+"/free:1")
	m.mustFail("not trusted", "load", "-i", m.dir+"/free.tar", "--name", app+":2")
	m.mustFail("not trusted", "run", "--network", "none", "--pull", "always", "--tls-verify=false", app+":1")
	// A policy that cannot be read lets nothing in.
	os.WriteFile(filepath.Join(trust, "broken.toml"), []byte("[[trust]\n"), 0o644)
	m.mustFail("broken.toml", "pull", "--tls-verify=false", m.reg.Addr+"/free:1")
}

// copySignature copies an image and its signature to another repository, as whoever holds the registry can.
func (m *machine) copySignature(from, to, digest string) {
	m.t.Helper()
	for _, id := range []string{"@" + digest, ":" + strings.Replace(digest, ":", "-", 1) + ".sig"} {
		src, err := name.ParseReference(m.reg.Addr+"/"+from+id, name.Insecure)
		if err != nil {
			m.t.Fatal(err)
		}
		img, err := remote.Image(src)
		if err == nil {
			_, err = m.reg.PushImage(to+strings.Replace(id, "@sha256:", ":x", 1), img)
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
}

// nothing: not even a compressed layer was fetched.
func (m *machine) nothing() {
	m.t.Helper()
	for _, d := range []string{"layers", "images", "partial", "tmp", "blobs/sha256"} {
		if es, err := os.ReadDir(filepath.Join(m.dir, "store", d)); err != nil || len(es) > 0 {
			m.t.Errorf("%s holds %v %v", d, es, err)
		}
	}
}

// TestMirror: registries.conf sends the pull to a mirror, under the image's own name.
func TestMirror(t *testing.T) {
	m := bareMachine(t)
	want := m.small("mirrored/lib/small:1")
	conf := fmt.Sprintf("[[registry]]\nprefix = \"example.org\"\nlocation = \"127.0.0.1:1\"\n[[registry.mirror]]\nlocation = \"%s/mirrored\"\ninsecure = true\n[[registry]]\nlocation = \"blocked.example\"\nblocked = true\n", m.reg.Addr)
	if err := os.WriteFile(filepath.Join(m.dir, "registries.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	m.must("pull", "example.org/lib/small:1")
	if got := m.digests()["example.org/lib/small:1"]; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	m.mustFail("blocked by", "pull", "blocked.example/x")
}

// TestInterruptedPull: what a killed pull had fetched is not fetched again.
func TestInterruptedPull(t *testing.T) {
	m := bareMachine(t)
	m.small("small:1")
	m.breakBlobs.Store(true)
	big := strings.Repeat("0123456789abcdef", 1<<12)
	noise := make([]byte, 1<<20)
	rand.Read(noise)
	if _, err := m.reg.Push("big:1", registrytest.Image{Layers: [][]registrytest.File{{{Name: "big", Body: big + string(noise)}}}}); err != nil {
		t.Fatal(err)
	}
	m.mustFail("gave up", "pull", "--tls-verify=false", m.reg.Addr+"/big:1")
	m.breakBlobs.Store(false)
	parts, err := os.ReadDir(filepath.Join(m.dir, "store/partial"))
	if err != nil || len(parts) != 1 {
		t.Fatalf("partial holds %v %v", parts, err)
	}
	m.must("pull", "--tls-verify=false", m.reg.Addr+"/big:1")
	if m.ranges.Load() == 0 {
		t.Error("no part of the blob was kept")
	}
	m.clean()
}
