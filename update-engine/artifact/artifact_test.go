package artifact

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"runtime"
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
		"", "oci:", "oci://", "oci:///updates:latest", "oci://docker.io/library/updates:latest", "oci://registry.example.org", "oci://registry.example.org/updates", "oci://registry.example.org/updates:",
		"oci://registry.example.org/Updates:latest", "oci://registry.example.org/../x:latest", "oci://registry.example.org//x:latest", "oci://registry.example.org/a:b:c",
		"oci://registry.example.org/a-:b", "oci://registry.example.org/a:.b", "oci://registry.example.org/a/.:b",
		"oci://registry.example.org/a:" + strings.Repeat("b", 129),
		"oci://user:pw@registry.example.org/updates:latest", "oci://user:pw@registry.example.org/%zz:latest", "oci://registry.example.org/updates:latest?x", "oci://registry.example.org/updates:latest#x",
		"oci://registry.example.org/updates@sha256:00", "oci://registry.example.org/updates:latest/../x", "oci://registry.example.org/updates:latest//x",
		"https://registry.example.org/updates:latest", "oci+https://registry.example.org/updates:latest",
	} {
		if got, err := Parse(address); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: got %+v, %v, want an error without the password", address, got, err)
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

func TestFind(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	manifest := `{"schemaVersion":2,"artifactType":"of/another-tool","config":{},"layers":[{"digest":"md5:1"},
		{"digest":"` + digest + `","size":3,"annotations":{"org.opencontainers.image.title":"metadata/timestamp.json","other":"x"}},
		{"digest":"sha256:../../x","annotations":{"org.opencontainers.image.title":"bad"}}],"annotations":{"x":"y"}} ` + "\n"
	got, of, err := Find(strings.NewReader(manifest), "metadata/timestamp.json")
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(manifest))); got.Digest != digest || got.Size != 3 || of != want || err != nil {
		t.Errorf("got %+v, %s, %v, want the manifest %s", got, of, err, want)
	}
	if got, _, err := Find(strings.NewReader(manifest), "metadata/2.root.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: got %+v, %v", got, err)
	}
	if got, _, err := Find(strings.NewReader(manifest), "bad"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %+v, %v for a digest that leads elsewhere", got, err)
	}
	for bad, want := range map[string]string{
		"": "EOF", "[]": "want {", "{": "EOF", "{}": "is no OCI image manifest", `{"schemaVersion":1}`: "is no OCI image manifest", `{"schemaVersion":2}`: "no layer is called",
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}`: "is no OCI image manifest",
		`{"schemaVersion":2,"layers":{}}`:                                           "want [", `{"schemaVersion":2,"layers":[1,1]}`: "cannot unmarshal", `{"schemaVersion":2,"layers":[`: "EOF", manifest[:100]: "EOF",
		`{"schemaVersion":2,"layers":[` + strings.Repeat("{},", MaxManifest/3): "manifest of more than 1048576 bytes",
		`{"schemaVersion":2}` + strings.Repeat(" ", MaxManifest):               "manifest of more than 1048576 bytes",
	} {
		if got, _, err := Find(strings.NewReader(bad), "metadata/timestamp.json"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: got %+v, %v, want %q", bad, got, err, want)
		}
	}
}

// A manifest of whoever it may be costs little memory (here: what is allocated in all, of which the collector takes back nearly everything).
func TestFindNeedsLittle(t *testing.T) {
	for _, layers := range []string{"{},", `{"digest":"x","annotations":{"a":"b"}},`, `{"annotations":{"org.opencontainers.image.title":"y"}},`} {
		manifest := `{"schemaVersion":2,"layers":[` + strings.Repeat(layers, (MaxManifest-100)/len(layers)) + `{}]}`
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := Find(strings.NewReader(manifest), "x")
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, fs.ErrNotExist) || got > 64<<20 {
			t.Errorf("%s: got %v, and %d bytes are allocated for a manifest of %d", layers, err, got, len(manifest))
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
		for _, file := range []string{a.File, "x", ""} {
			d, _, err := Find(strings.NewReader(manifest), file)
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
