package artifact

import (
	"errors"
	"io/fs"
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for address, want := range map[string]Address{
		"oci://registry.example.org/updates:latest":                      {Registry: "registry.example.org", Name: "updates", Tag: "latest"},
		"oci://registry.example.org/updates:latest/":                     {Registry: "registry.example.org", Name: "updates", Tag: "latest"},
		"oci+http://10.0.2.2:5000/a/b-c__d:v1.0/metadata/1.root.json":    {Plain: true, Registry: "10.0.2.2:5000", Name: "a/b-c__d", Tag: "v1.0", File: "metadata/1.root.json"},
		"oci://[::1]:5000/a:x/targets/releases/1.0.1/amd64/release.json": {Registry: "[::1]:5000", Name: "a", Tag: "x", File: "targets/releases/1.0.1/amd64/release.json"},
	} {
		got, err := Parse(address)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", address, got, err, want)
		}
		if !strings.HasPrefix(address, got.String()) {
			t.Errorf("%s is written %s", address, got)
		}
	}
	for _, address := range []string{
		"", "oci:", "oci://", "oci:///updates:latest", "oci://registry.example.org", "oci://registry.example.org/updates", "oci://registry.example.org/updates:",
		"oci://registry.example.org/Updates:latest", "oci://registry.example.org/../x:latest", "oci://registry.example.org//x:latest", "oci://registry.example.org/a:b:c",
		"oci://registry.example.org/a-:b", "oci://registry.example.org/a:.b", "oci://registry.example.org/a/.:b",
		"oci://registry.example.org/a:" + strings.Repeat("b", 129),
		"oci://user:pw@registry.example.org/updates:latest", "oci://registry.example.org/updates:latest?x", "oci://registry.example.org/updates:latest#x",
		"oci://registry.example.org/updates@sha256:00", "oci://registry.example.org/updates:latest/../x", "oci://registry.example.org/updates:latest//x",
		"https://registry.example.org/updates:latest", "oci+https://registry.example.org/updates:latest",
	} {
		if got, err := Parse(address); err == nil {
			t.Errorf("%s: got %+v", address, got)
		}
	}
}

func TestURL(t *testing.T) {
	a := Address{Registry: "registry.example.org:443", Name: "a/b", Tag: "latest"}
	if got, want := a.URL("manifests/"+a.Tag), "https://registry.example.org:443/v2/a/b/manifests/latest"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if a.Plain = true; !strings.HasPrefix(a.URL("x"), "http://") {
		t.Errorf("got %s", a.URL("x"))
	}
}

func TestManifest(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	m, err := ParseManifest([]byte(`{"schemaVersion":2,"artifactType":"of/another-tool","config":{},"layers":[{"digest":"md5:1"},
		{"digest":"` + digest + `","size":3,"annotations":{"org.opencontainers.image.title":"metadata/timestamp.json"}},
		{"digest":"sha256:../../x","annotations":{"org.opencontainers.image.title":"bad"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Find("metadata/timestamp.json"); got.Digest != digest || got.Size != 3 || err != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := m.Find("metadata/2.root.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: got %+v, %v", got, err)
	}
	if got, err := m.Find("bad"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %+v, %v for a digest that leads elsewhere", got, err)
	}
	for _, bad := range []string{"", "[]", "{}", `{"schemaVersion":1}`, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}`, `{"schemaVersion":2,"layers":{}}`} {
		if m, err := ParseManifest([]byte(bad)); err == nil {
			t.Errorf("%s: got %+v", bad, m)
		}
	}
}

// Whatever an address or a manifest says, what is asked of a registry stays below its repository.
func FuzzAddressAndManifest(f *testing.F) {
	f.Add("oci://registry.example.org/os/updates:latest/metadata/1.root.json", `{"schemaVersion":2,"layers":[{"digest":"sha256:`+strings.Repeat("0a", 32)+`","annotations":{"org.opencontainers.image.title":"x"}}]}`)
	f.Fuzz(func(t *testing.T, address, manifest string) {
		a, err := Parse(address)
		if err != nil {
			return
		}
		if again, err := Parse(a.String()); err != nil || again.String() != a.String() {
			t.Errorf("%q is written %q: %v", address, a, err)
		}
		m, err := ParseManifest([]byte(manifest))
		if err != nil {
			return
		}
		for _, l := range m.Layers {
			d, err := m.Find(l.Annotations[TitleKey])
			if err != nil {
				continue
			}
			u, err := url.Parse(a.URL("blobs/" + d.Digest))
			if err != nil || u.Host != a.Registry || path.Clean(u.Path) != u.Path || !strings.HasPrefix(u.Path, "/v2/"+a.Name+"/blobs/sha256:") {
				t.Errorf("%q and %q lead to %s, %v", address, manifest, u, err)
			}
		}
	})
}
