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
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	verified := digest.NewReader(file, f, p.Size, p.SHA256)
	d, err := deb.NewReader(verified)
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
	_, err = io.Copy(io.Discard, verified)
	return err
}
