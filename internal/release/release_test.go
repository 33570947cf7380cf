package release

import (
	"bytes"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
)

func valid() *Release {
	h := digest.Of([]byte("x"))
	return &Release{
		Version: "1.0.1", Arch: "amd64",
		Root: RootImage{Size: 3 * 4096, SHA256: h, RootHash: h, Salt: strings.Repeat("0", 64), HashOffset: 4096},
		Boot: BootProgram{Size: 1, SHA256: h},
	}
}

func payloads() *Payloads {
	h, source := digest.Of([]byte("payload")), digest.Of([]byte("source"))
	return &Payloads{
		Full:   Payload{Name: "full", Size: 1, SHA256: h, Manifest: h},
		Deltas: map[digest.SHA256]Payload{source: {Name: "delta", Size: 1, SHA256: h, Manifest: h}},
	}
}

func TestRoundTrip(t *testing.T) {
	b, err := valid().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	b2, _ := r.Marshal()
	if string(b) != string(b2) {
		t.Errorf("got %s, want %s", b2, b)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Release)
		want   string
	}{
		{"version", func(r *Release) { r.Version = "one" }, `version "one"`},
		{"arch", func(r *Release) { r.Arch = "" }, "no arch"},
		{"offset", func(r *Release) { r.Root.HashOffset = 4095 }, "hash offset 4095"},
		{"no tree", func(r *Release) { r.Root.Size = 4096 }, "does not hold a verity tree"},
		{"no hash", func(r *Release) { r.Root.RootHash = digest.SHA256{} }, "no hash"},
		{"full payload without a manifest's hash", func(r *Release) { r.Payloads = payloads(); r.Payloads.Full.Manifest = digest.SHA256{} }, "full payload of 1.0.1: no hash"},
		{"payload without a name", func(r *Release) { r.Payloads = payloads(); r.Payloads.Full.Name = "" }, "no name"},
		{"empty payload", func(r *Release) { r.Payloads = payloads(); r.Payloads.Full.Size = 0 }, "size of 0 bytes"},
		{"delta from itself", func(r *Release) {
			r.Payloads = payloads()
			r.Payloads.Deltas[r.Root.RootHash] = r.Payloads.Full
		}, "there is no way from there"},
		{"delta without a hash", func(r *Release) {
			r.Payloads = payloads()
			r.Payloads.Deltas[digest.Of(nil)] = Payload{Name: "delta", Size: 1}
		}, "delta of 1.0.1 from root hash e3b0c442"},
		{"no boot program", func(r *Release) { r.Boot.Size = 0 }, "boot program"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := valid()
			tt.change(r)
			b, _ := r.Marshal()
			if _, err := Parse(b); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := Parse([]byte(`{"vversion":"1"}`)); err == nil || !strings.Contains(err.Error(), "vversion") {
		t.Errorf("unknown key: got %v", err)
	}
}

// Machines read what a later desk has written, unless it says that they cannot.
func TestReadOfLaterReleases(t *testing.T) {
	b, err := valid().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for first, want := range map[string]string{
		"":                            "",
		`"format": 1,`:                "",
		`"notes": {"en": "faster"},`:  "",
		`"format": 2, "version": "",`: "format 2, this program reads 1: update in smaller steps",
	} {
		text := strings.Replace(string(b), "{", "{"+first, 1)
		if _, err := Read([]byte(text)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("with %s: got %v, want %q", first, err, want)
		}
	}
}

// FuzzParse: what is accepted is valid, and the canonical bytes are a fixed point.
func FuzzParse(f *testing.F) {
	full := valid()
	full.Packages = []Package{{Name: "libc6", Version: "2.41-12"}}
	full.Payloads = payloads()
	full.MinSource = "0.9.0"
	for _, r := range []*Release{valid(), full} {
		b, err := r.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		if err := r.Validate(); err != nil {
			t.Errorf("parsed but not valid: %v", err)
		}
		text, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if text2, err := again.Marshal(); err != nil || !bytes.Equal(text, text2) {
			t.Errorf("got %s, %v, want %s", text2, err, text)
		}
	})
}
