package lock

import (
	"archive/tar"
	"fmt"
	"io"
	"os"

	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/internal/digest"
)

// Unpack gives each entry of a package file to write, in the order of the archive and checked by deb.CheckEntry. The file is compared
// with the lock once more while it is read; what was written before an error must not be used.
func Unpack(file string, p Package, write func(*tar.Header, io.Reader) error) error {
	d, err := openDeb(file, p)
	if err != nil {
		return err
	}
	defer d.Close()
	t := d.Tar()
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err = deb.CheckEntry(h); err == nil {
			err = write(h, t)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return d.verify()
}

// verifiedDeb is a package file that is compared with the lock while it is read.
type verifiedDeb struct {
	*deb.Reader
	file *os.File
	all  io.Reader
}

func openDeb(file string, p Package) (*verifiedDeb, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	all := digest.NewReader(file, f, p.Size, p.SHA256)
	d, err := deb.NewReader(all)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &verifiedDeb{d, f, all}, nil
}

func (v *verifiedDeb) Close() {
	v.Reader.Close()
	v.file.Close()
}

// verify reads the rest: without it what was read so far vouches for nothing.
func (v *verifiedDeb) verify() error {
	_, err := io.Copy(io.Discard, v.all)
	return err
}
