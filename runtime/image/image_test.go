package image

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
)

// docs is a set of documents by digest.
type docs map[Digest][]byte

func (d docs) put(text string) Digest {
	s := Digest(sha256.Sum256([]byte(text)))
	d[s] = []byte(text)
	return s
}

func (d docs) get(desc Descriptor) ([]byte, error) {
	b, ok := d[desc.Digest]
	if !ok {
		return nil, os.ErrNotExist
	}
	return b, nil
}

var (
	linux = Platform{OS: "linux", Architecture: "amd64"}
	layer = strings.Repeat("1", 64)
)

const config = `{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:2222222222222222222222222222222222222222222222222222222222222222"]},"config":{"Cmd":["x"]}}`

func (d docs) manifest(config, layers string) Digest {
	c := d.put(config)
	return d.put(fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":"%s","size":%d},"layers":[%s]}`, c, len(config), layers))
}

func goodLayer() string {
	return `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:` + layer + `","size":7}`
}

func (d docs) index(entries ...string) Digest {
	return d.put(`{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`)
}

func (d docs) entry(m Digest, platform string) string {
	return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d,"platform":%s}`, m, len(d[m]), platform)
}

func TestResolve(t *testing.T) {
	d := docs{}
	m := d.manifest(config, goodLayer())
	other := d.put(`{"schemaVersion":2}`)
	top := d.index(d.entry(other, `{"os":"linux","architecture":"arm64"}`), d.entry(other, `{"os":"linux","architecture":"amd64","variant":"v4"}`),
		d.entry(m, `{"os":"linux","architecture":"amd64"}`))
	for _, start := range []Digest{m, top} {
		img, err := resolve(start, d.get, linux)
		if err != nil {
			t.Fatal(err)
		}
		if img.Digest != m || img.Top != start || img.Size() != 7 || img.Config.Config.Cmd[0] != "x" {
			t.Errorf("%+v", img)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	d := docs{}
	good := d.manifest(config, goodLayer())
	inner := d.index(d.entry(good, `{"os":"linux","architecture":"amd64"}`))
	for name, c := range map[string]struct {
		top  Digest
		want string
	}{
		"no platform":     {d.index(d.entry(good, `{"os":"linux","architecture":"s390x"}`)), "no image for linux/amd64, only for linux/s390x"},
		"index in index":  {d.index(d.entry(inner, `{"os":"linux","architecture":"amd64"}`)), "indexes in indexes"},
		"both":            {d.put(`{"schemaVersion":2,"manifests":[],"layers":[]}`), "or both"},
		"neither":         {d.put(`{"schemaVersion":2}`), "neither"},
		"schema 1":        {d.put(`{"schemaVersion":1}`), "schema version 1"},
		"no JSON":         {d.put(`<html>`), "invalid character"},
		"sha512":          {d.put(`{"schemaVersion":2,"config":{"digest":"sha512:00"},"layers":[]}`), "sha256:<64 digits>"},
		"path as digest":  {d.put(`{"schemaVersion":2,"config":{"digest":"sha256:../../../etc/passwd"},"layers":[]}`), "hexadecimal"},
		"no config":       {d.put(`{"schemaVersion":2,"layers":[]}`), "no configuration"},
		"diffIDs":         {d.manifest(config, ""), "0 layers, but 1 diffIDs"},
		"architecture":    {d.manifest(strings.Replace(config, "amd64", "arm64", 1), goodLayer()), "the image is for linux/arm64"},
		"foreign layer":   {d.manifest(config, strings.Replace(goodLayer(), "layer.v1", "layer.nondistributable.v1", 1)), "fetched from elsewhere"},
		"encrypted layer": {d.manifest(config, strings.Replace(goodLayer(), "gzip", "gzip+encrypted", 1)), "not supported"},
		"negative size":   {d.manifest(config, strings.Replace(goodLayer(), ":7", ":-7", 1)), "size -7"},
		"many layers":     {d.manifest(config, strings.Repeat(goodLayer()+",", 127)+goodLayer()), "128 layers"},
	} {
		if _, err := resolve(c.top, d.get, linux); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", name, err, c.want)
		}
	}
}

// TestResolveVerifies: a document that is not the one asked for is refused, whoever delivers it.
func TestResolveVerifies(t *testing.T) {
	d := docs{}
	m := d.manifest(config, goodLayer())
	for key := range d {
		bad := docs{}
		for k, v := range d {
			bad[k] = v
		}
		bad[key] = append([]byte(" "), bad[key]...)
		_, err := resolve(m, bad.get, linux)
		var mismatch *digest.MismatchError
		if !errors.As(err, &mismatch) {
			t.Errorf("changed %s: error %v", key, err)
		}
	}
}

func FuzzResolve(f *testing.F) {
	d := docs{}
	d.manifest(config, goodLayer())
	for _, b := range d {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := docs{}
		d.put(config)
		resolve(d.put(string(b)), d.get, linux)
	})
}
