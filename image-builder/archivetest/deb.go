package archivetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Deb describes a package to make.
type Deb struct {
	Name        string
	Version     string            // default "1.0"
	Arch        string            // default "amd64"
	Fields      map[string]string // further control fields: Depends, Provides ...
	Files       []File
	Compression string // suffix of both tars: ".xz" (default), ".zst", ".gz" or "none"
}

// File is an entry of data.tar.
type File struct {
	Name string // as in the tar: "./usr/bin/x"
	Body string
	Type byte   // tar.TypeReg by default
	Link string // target of a symbolic or hard link
	Mode int64  // default 0644, or 0755 for a directory
	UID  int
	PAX  map[string]string // further records, such as SCHILY.xattr.user.x; "XNU.sparse." stands for "GNU.sparse."
}

// Paragraph is the control file.
func (d Deb) Paragraph() string {
	d = d.withDefaults()
	var b strings.Builder
	fmt.Fprintf(&b, "Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: Test <test@example.org>\n", d.Name, d.Version, d.Arch)
	for _, k := range slices.Sorted(maps.Keys(d.Fields)) {
		fmt.Fprintf(&b, "%s: %s\n", k, d.Fields[k])
	}
	b.WriteString("Description: a test package\n of two lines\n")
	return b.String()
}

func (d Deb) withDefaults() Deb {
	if d.Version == "" {
		d.Version = "1.0"
	}
	if d.Arch == "" {
		d.Arch = "amd64"
	}
	switch d.Compression {
	case "":
		d.Compression = ".xz"
	case "none":
		d.Compression = ""
	}
	return d
}

// Build returns the package file.
func (d Deb) Build(t testing.TB) []byte {
	t.Helper()
	d = d.withDefaults()
	control := Tar(t, []File{{Name: "./", Type: tar.TypeDir}, {Name: "./control", Body: d.Paragraph()}})
	return Ar(
		Member{"debian-binary", []byte("2.0\n")},
		Member{"control.tar" + d.Compression, Compress(t, d.Compression, control)},
		Member{"data.tar" + d.Compression, Compress(t, d.Compression, Tar(t, d.Files))},
	)
}

// Member is a file of an ar archive.
type Member struct {
	Name string
	Body []byte
}

// Ar writes an ar(5) archive.
func Ar(members ...Member) []byte {
	b := bytes.NewBufferString("!<arch>\n")
	for _, m := range members {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.Name, 0, 0, 0, "100644", len(m.Body))
		b.Write(m.Body)
		if len(m.Body)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// Tar writes a tar archive with fixed owners and times.
func Tar(t testing.TB, files []File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Typeflag: f.Type, Linkname: f.Link, Mode: f.Mode, Uid: f.UID, PAXRecords: f.PAX,
			ModTime: time.Unix(1735689600, 0), Uname: "root", Gname: "root"}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(f.Body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.Body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// archive/tar writes no sparse files, but reads them.
	return bytes.ReplaceAll(b.Bytes(), []byte("XNU.sparse."), []byte("GNU.sparse."))
}

// Compress compresses b as suffix says: ".xz", ".zst", ".gz" or "".
func Compress(t testing.TB, suffix string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch suffix {
	case "":
		return b
	case ".xz":
		w, err = xz.WriterConfig{DictCap: 1 << 16}.NewWriter(&out) // the default of 8 MiB takes a while
	case ".zst":
		w, err = zstd.NewWriter(&out)
	case ".gz":
		w = gzip.NewWriter(&out)
	default:
		err = fmt.Errorf("no compression %q", suffix)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
