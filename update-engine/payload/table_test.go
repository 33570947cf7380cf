package payload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/update-engine/column"
	"github.com/proa-os/proa/update-engine/module/moduletest"
)

// What the image says of its agent is what this package reads.
func TestImageSaysTheVersion(t *testing.T) {
	b, err := os.ReadFile("../../manifests/files/" + versionFile)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(b), strconv.Itoa(Version)+"\n"; got != want {
		t.Errorf("the image says %q, the agent reads %q", got, want)
	}
}

// modules is an image with some kernel modules in it, whose directory has the kernel's version.
func modules(t *testing.T, kernel string, insert int, more map[string][]byte) []byte {
	files := map[string][]byte{"etc/hostname": []byte("proa\n")}
	for i, name := range []string{"a.ko", "b.ko", "c.ko"} {
		files["usr/lib/modules/"+kernel+"/"+name] = moduletest.Module{Seed: uint64(i), Functions: 300, Insert: insert}.File()
	}
	for name, b := range more {
		files[name] = b
	}
	return erofs(t, testenv.Tools(t), files, "-E", "noinline_data") // as image-builder makes them
}

// The tables of kernel modules are foretold if whoever runs the source can read that; for all others the delta is larger, and of the older version.
func TestDeltaOfModules(t *testing.T) {
	boot := noise(98, 10_000)
	newRoot := modules(t, "6.12.2", 100, map[string][]byte{versionFile: []byte("3\n")})
	sizes := map[string]int{}
	for name, c := range map[string]struct {
		says    map[string][]byte
		version byte
	}{
		"version 3": {map[string][]byte{versionFile: []byte("3\n")}, 3},
		"a newer":   {map[string][]byte{versionFile: []byte("12")}, 3},
		"older":     {nil, 2},
		"version 2": {map[string][]byte{versionFile: []byte("2\n")}, 2},
		"nonsense":  {map[string][]byte{versionFile: []byte("3.1\n")}, 2},
	} {
		d, src := deltaOf(modules(t, "6.12.1", -1, c.says), boot, newRoot, boot)
		b, m := makeDelta(t, d, src)
		fits := 0
		for _, s := range m.Output(RootImage).Segments {
			if s.Op == Fit {
				fits++
			}
		}
		if b[8] != c.version || (fits > 0) != (c.version == 3) {
			t.Errorf("%s: version %d, %d segments are a FIT", name, b[8], fits)
		}
		sizes[name] = len(b)
	}
	if sizes["version 3"]*20 > sizes["older"]*19 { // which is modelled: much of what is foretold a model learns
		t.Errorf("foretold it has %d bytes, otherwise %d", sizes["version 3"], sizes["older"])
	}
}

// Segments cut tables, records and files in two; each is made without what the ones before it have learnt.
func TestFitResumes(t *testing.T) {
	oldRoot := modules(t, "6.12.1", -1, map[string][]byte{versionFile: []byte("3\n")})
	newRoot := modules(t, "6.12.2", 100, map[string][]byte{versionFile: []byte("3\n")})
	boot := noise(98, 10_000)
	d, src := deltaOf(oldRoot, boot, newRoot, boot)
	var b bytes.Buffer
	if _, err := CreateDelta(t.Context(), &b, d, Options{Segment: 20_011}, nil); err != nil {
		t.Fatal(err)
	}
	m, err := ReadManifest(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	fits := 0
	for _, s := range m.Output(RootImage).Segments {
		if s.Op == Fit {
			fits++
		}
	}
	if fits < 10 {
		t.Errorf("%d segments are a FIT", fits)
	}
	takenUp(t, b.Bytes(), m, src, newRoot)
}

// Who says version 2 has no FIT.
func TestFitNeedsItsVersion(t *testing.T) {
	b, d := handmade(t, fitted(t, nil))
	if _, err := d.apply(bytes.NewReader(b)); err != nil || b[8] != Version {
		t.Fatalf("version %d: %v", b[8], err)
	}
	b[8] = firstVersion
	if _, err := ReadManifest(bytes.NewReader(b)); err == nil || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "version 2 does not have all of its operations") {
		t.Errorf("got %v", err)
	}
}

// fitted makes the DIFF of the delta by hand a FIT of 1000 bytes with records in them: the same text as ranges, then what change makes of it.
func fitted(t testing.TB, change func([]byte) []byte) func(*sampleDelta) {
	t.Helper()
	return func(d *sampleDelta) {
		seg := &d.m.Outputs[1].Segments[1]
		text := rangesText([]column.Range{{At: 3, Count: 10, Kind: column.Rela, First: true, Target: 2}, {At: 243, Count: 100, Kind: column.Words}, {At: 700, Count: 4, Kind: column.Version}})
		if change != nil {
			text = change(text)
		}
		control := append(text, d.blobs[5]...)
		seg.Op, seg.Streams[0], d.blobs[5] = Fit, Stream{Raw, int64(len(control)), int64(len(control))}, control
	}
}

func TestRefusesRanges(t *testing.T) {
	uv := func(numbers ...uint64) (b []byte) {
		for _, n := range numbers {
			b = binary.AppendUvarint(b, n)
		}
		return b
	}
	for _, c := range []struct {
		name string
		text []byte
		want string
	}{
		{"none", uv(0), "are not in the diff stream"},
		{"too many", uv(maxRanges + 1), "are not in the diff stream"},
		{"more than there are bytes", uv(9, 0, 1, 0), "are not in the diff stream"},
		{"unknown kind", uv(1, 0, 1, 9), "are not in the diff stream"},
		{"no record", uv(1, 0, 0, 0), "are not in the diff stream"},
		{"behind the stream", uv(1, 1000, 1, 0), "are not in the diff stream"},
		{"half behind the stream", uv(1, 990, 1, 2), "are not in the diff stream"},
		{"far behind the stream", uv(1, 1<<39, 1, 0), "are not in the diff stream"},
		{"records beyond counting", uv(1, 0, 1<<39, 3), "are not in the diff stream"},
		{"second behind the stream", uv(2, 0, 15, 3, 20, 6, 3), "are not in the diff stream"},
		{"symbol out of range", uv(1, 0, 1, 1, maxSymbol+1), "are not in the diff stream"},
		{"number that is too large", append(uv(1), bytes.Repeat([]byte{0xff}, 9)...), "a number is longer than it need be"},
	} {
		b, d := handmade(t, fitted(t, func([]byte) []byte { return c.text }))
		sink, err := d.apply(bytes.NewReader(b))
		if err == nil || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "control stream") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
		checkWritten(t, sink, d.root, d.boot, c.name)
	}
	// Ranges that are other records than those of the writer make other bytes, which are not those that are signed.
	b, d := handmade(t, func(d *sampleDelta) {
		fitted(t, func([]byte) []byte { return uv(1, 0, 40, 2) })(d)
		seg := &d.m.Outputs[1].Segments[1]
		packed := bytes.Repeat([]byte{1}, 1000)
		seg.Streams[1] = Stream{Raw, 1000, 1000}
		d.blobs = append(d.blobs[:6], append([][]byte{packed}, d.blobs[6:]...)...)
	})
	if _, err := d.apply(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "FIT: expected sha256") {
		t.Errorf("got %v", err)
	}
}
