package deb_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/proa-os/proa/image-builder/archivetest"
	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

var sample = archivetest.Deb{
	Name:   "hello",
	Fields: map[string]string{"Depends": "libc6 (>= 2.41)"},
	Files: []archivetest.File{
		{Name: "./usr/", Type: tar.TypeDir},
		{Name: "./usr/bin/hello", Body: "odd", Mode: 0o755},
		{Name: "./usr/bin/hi", Type: tar.TypeSymlink, Link: "hello"},
	},
}

func TestReader(t *testing.T) {
	for _, compression := range []string{".xz", ".zst", ".gz", "none"} {
		t.Run(compression, func(t *testing.T) {
			d := sample
			d.Compression = compression
			// One byte at a time shows whether reads are assumed to fill.
			r, err := deb.NewReader(iotest.OneByteReader(bytes.NewReader(d.Build(t))))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, want := r.Control.Get("Depends"), "libc6 (>= 2.41)"; got != want {
				t.Errorf("Depends: got %q, want %q", got, want)
			}
			want := "./usr/ 5 0755\n./usr/bin/hello 0 0755 odd\n./usr/bin/hi 2 0644 -> hello\n"
			if got := list(t, r.Tar()); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func list(t *testing.T, tr *tar.Reader) string {
	t.Helper()
	var b strings.Builder
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %c %04o", h.Name, h.Typeflag, h.Mode)
		if len(body) > 0 {
			fmt.Fprintf(&b, " %s", body)
		}
		if h.Linkname != "" {
			fmt.Fprintf(&b, " -> %s", h.Linkname)
		}
		b.WriteByte('\n')
	}
}

// TestReaderTruncated cuts a package at every byte: never a panic, never a success.
func TestReaderTruncated(t *testing.T) {
	for _, compression := range []string{".xz", ".zst", ".gz", "none"} {
		d := sample
		d.Compression = compression
		whole := d.Build(t)
		whole = bytes.TrimSuffix(whole, []byte("\n")) // padding may be missing at the end
		for n := range whole {
			if err := readAll(bytes.NewReader(whole[:n])); err == nil {
				t.Fatalf("%s cut to %d of %d bytes: no error", compression, n, len(whole))
			} else if errors.Is(err, io.EOF) {
				t.Fatalf("%s cut to %d of %d bytes: got %v, want an unexpected end", compression, n, len(whole), err)
			}
		}
	}
}

func readAll(r io.Reader) error {
	d, err := deb.NewReader(r)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = io.Copy(io.Discard, d.Data)
	return err
}

func TestReaderErrors(t *testing.T) {
	control := archivetest.Tar(t, []archivetest.File{{Name: "./control", Body: sample.Paragraph()}})
	version := archivetest.Member{Name: "debian-binary", Body: []byte("2.0\n")}
	for _, tc := range []struct {
		name string
		body []byte
		want string
	}{
		{"not ar", []byte("PK\x03\x04 some zip file"), `expected "!<arch>\n", found "PK`},
		{"empty ar", archivetest.Ar(), "member debian-binary is missing"},
		{"format 3", archivetest.Ar(archivetest.Member{Name: "debian-binary", Body: []byte("3.0\n")}), "expected format 2.x"},
		{"order", archivetest.Ar(version, archivetest.Member{Name: "data.tar"}), `expected member control.tar, found "data.tar"`},
		{"no data", archivetest.Ar(version, archivetest.Member{Name: "control.tar", Body: control}), "member data.tar is missing"},
		{"no control", archivetest.Ar(version, archivetest.Member{Name: "control.tar", Body: archivetest.Tar(t, nil)}), "file control is missing"},
		{"control twice", archivetest.Ar(version, archivetest.Member{Name: "control.tar", Body: archivetest.Tar(t, []archivetest.File{
			{Name: "./control", Body: sample.Paragraph()}, {Name: "control", Body: "Package: evil\n"}})}), "file control is there twice"},
		{"control is a link", archivetest.Ar(version, archivetest.Member{Name: "control.tar", Body: archivetest.Tar(t, []archivetest.File{
			{Name: "./control", Type: tar.TypeSymlink, Link: "/etc/passwd"}})}), "file control is of type '2'"},
		{"control without end", archivetest.Ar(version, archivetest.Member{Name: "control.tar.zst", Body: archivetest.Compress(t, ".zst",
			archivetest.Tar(t, []archivetest.File{{Name: "./md5sums", Body: strings.Repeat("\x00", 65<<20)}}))}), "decompresses to more than"},
		{"data twice, before control", archivetest.Ar(version, archivetest.Member{Name: "data.tar"}, archivetest.Member{Name: "control.tar", Body: control}), `found "data.tar"`},
		{"two controls", archivetest.Ar(version, archivetest.Member{Name: "control.tar", Body: control}, archivetest.Member{Name: "control.tar", Body: control}), `expected member data.tar, found "control.tar"`},
		{"two versions", archivetest.Ar(version, version), `expected member control.tar, found "debian-binary"`},
		{"bzip2", archivetest.Ar(version, archivetest.Member{Name: "control.tar.bz2", Body: control}), `compression ".bz2" is not one of`},
		{"wrong compression", archivetest.Ar(version, archivetest.Member{Name: "control.tar.xz", Body: control}), "decompress xz"},
		{"bad size", bytes.Replace(archivetest.Ar(version), []byte("4         `"), []byte("4x        `"), 1), `size "4x        " is not a decimal number`},
		{"negative size", bytes.Replace(archivetest.Ar(version), []byte("4         `"), []byte("-4        `"), 1), "is not a decimal number"},
		{"bad header end", bytes.Replace(archivetest.Ar(version), []byte("`\n"), []byte("``"), 1), "at its end, found"},
	} {
		if err := readAll(bytes.NewReader(tc.body)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.want)
		}
	}
}

// TestReaderBomb: 1 MiB of zeros is a small file, and so would be 1 TiB.
func TestReaderBomb(t *testing.T) {
	for _, compression := range []string{".xz", ".zst", ".gz"} {
		d := archivetest.Deb{Name: "bomb", Compression: compression, Files: []archivetest.File{{Name: "./zeros", Body: strings.Repeat("\x00", 1<<20)}}}
		for limit, ok := range map[int64]bool{1 << 20: false, 2 << 20: true} {
			r, err := deb.NewReaderLimit(bytes.NewReader(d.Build(t)), limit)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, r.Data)
			r.Close()
			if ok != (err == nil) || n > limit || err != nil && !strings.Contains(err.Error(), "data.tar"+compression+": it decompresses to more than") {
				t.Errorf("%s, %d bytes allowed: got %d, %v", compression, limit, n, err)
			}
		}
	}
}

// TestReaderSkipsUnderscoreMembers is deb(5)'s room for extensions.
func TestReaderSkipsUnderscoreMembers(t *testing.T) {
	control := archivetest.Tar(t, []archivetest.File{{Name: "control", Body: sample.Paragraph()}})
	err := readAll(bytes.NewReader(archivetest.Ar(
		archivetest.Member{Name: "debian-binary/", Body: []byte("2.1\n")},
		archivetest.Member{Name: "_gpgorigin", Body: []byte("odd")},
		archivetest.Member{Name: "control.tar", Body: control},
		archivetest.Member{Name: "data.tar", Body: archivetest.Tar(t, nil)},
	)))
	if err != nil {
		t.Error(err)
	}
}

// TestReaderJudge compares with dpkg-deb: made packages always, and packages of the cache, if it has any.
func TestReaderJudge(t *testing.T) {
	tree := testenv.Tools(t)
	dir := t.TempDir()
	var files []string
	for _, compression := range []string{".xz", ".zst", ".gz", "none"} {
		d := sample
		d.Compression = compression
		file := filepath.Join(dir, "hello"+compression+".deb")
		if err := os.WriteFile(file, d.Build(t), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	files = append(files, cached(t)...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, file := range files {
		want, err := tree.Command(ctx, "dpkg-deb", "--fsys-tarfile", file).Output()
		if err != nil {
			t.Fatalf("dpkg-deb --fsys-tarfile %s: %v", file, err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := deb.NewReader(f)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		defer r.Close()
		got := sha256.New()
		if _, err := io.Copy(got, r.Data); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if sum := sha256.Sum256(want); !bytes.Equal(sum[:], got.Sum(nil)) {
			t.Errorf("%s (%s): data.tar differs from what dpkg-deb makes of it", file, r.Control.Get("Package"))
		}
	}
}

// cached returns some small packages of the cache.
func cached(t *testing.T) []string {
	t.Helper()
	cache, err := tooltree.CacheDir()
	if err != nil {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(cache, "debs", "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(f string) bool {
		fi, err := os.Stat(f)
		return err != nil || fi.Size() > 200<<10
	})
	return files[:min(12, len(files))]
}

// FuzzReader: how the bytes arrive does not change what is read, an end is never taken for success, and no more comes out than allowed.
func FuzzReader(f *testing.F) {
	for _, compression := range []string{".xz", ".zst", ".gz", "none"} {
		d := sample
		d.Compression = compression
		f.Add(d.Build(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 20
		read := func(r io.Reader) (fields, files string, err error) {
			d, err := deb.NewReaderLimit(r, limit)
			if err != nil {
				return "", "", err
			}
			defer d.Close()
			var out bytes.Buffer
			_, err = out.ReadFrom(d.Data)
			return fmt.Sprint(d.Control.Fields()), out.String(), err
		}
		fields, files, err := read(bytes.NewReader(b))
		if len(files) > limit || errors.Is(err, io.EOF) {
			t.Errorf("got %d bytes, %v", len(files), err)
		}
		fields2, files2, err2 := read(iotest.HalfReader(iotest.DataErrReader(bytes.NewReader(b))))
		if fields != fields2 || (err == nil) != (err2 == nil) || err == nil && files != files2 {
			t.Errorf("at once: %q, %d bytes, %v; in pieces: %q, %d bytes, %v", fields, len(files), err, fields2, len(files2), err2)
		}
	})
}
