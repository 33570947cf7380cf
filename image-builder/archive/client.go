package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/internal/digest"
)

const (
	maxRelease = 8 << 20   // bytes of an InRelease file; Debian's have 150 KB
	maxIndex   = 512 << 20 // bytes of an index; Debian's have 55 MB
)

// Client reads the indexes of an archive.
type Client struct {
	Mirrors Mirrors
	Keys    Keyring
	Getter  *Getter
	Now     func() time.Time
}

// Packages lists the packages of a suite's component main for arch, verified up to the keyring.
func (c *Client) Packages(ctx context.Context, suite, arch string) ([]Package, *Release, error) {
	rel, err := c.release(ctx, suite)
	if err != nil {
		return nil, nil, err
	}
	plain, name, err := c.index(ctx, rel, "main/binary-"+arch+"/Packages")
	if err != nil {
		return nil, nil, err
	}
	list, err := ParsePackages(name, suite, plain)
	if err != nil {
		return nil, nil, fmt.Errorf("read index: %w", err)
	}
	for _, p := range list {
		if p.Arch != arch && p.Arch != "all" {
			return nil, nil, fmt.Errorf("read index %s: package %s is of architecture %q, expected %s or all", name, p.Name, p.Arch, arch)
		}
	}
	return list, rel, nil
}

func (c *Client) release(ctx context.Context, suite string) (*Release, error) {
	url := c.Mirrors.URL(Of(suite), "dists/"+suite+"/InRelease")
	var b []byte
	err := c.get(ctx, url, func(body io.Reader) (err error) {
		b, err = io.ReadAll(io.LimitReader(body, maxRelease+1))
		return err
	})
	if IsMissing(err) {
		return nil, fmt.Errorf("%w: the mirror does not have suite %s: try another mirror, or correct the suites of the manifest", err, suite)
	}
	if err != nil {
		return nil, err
	}
	if len(b) > maxRelease {
		return nil, fmt.Errorf("get %s: more than %d bytes", url, maxRelease)
	}
	return VerifyRelease(url, b, suite, c.Keys, c.Now())
}

// index returns an uncompressed index and the URL it came from. Of the forms that the Release names, the first that the mirror
// has is taken. The uncompressed form has to be named even where no mirror has it ("DebianRepository/Format", MD5Sum, SHA1, SHA256):
// with it, what comes out of the decompressor is bounded and verified too.
func (c *Client) index(ctx context.Context, rel *Release, file string) (io.Reader, string, error) {
	want, ok := rel.File(file)
	if !ok {
		return nil, "", fmt.Errorf("read index: InRelease of %s names no %s: does the archive have this architecture?", rel.Suite, file)
	}
	var missing error
	for _, suffix := range []string{".xz", ".gz", ""} {
		f, ok := rel.File(file + suffix)
		if !ok {
			continue
		}
		if size := max(f.Size, want.Size); size > maxIndex {
			return nil, "", fmt.Errorf("read index %s of %s: it has %d bytes, at most %d are read", f.Path, rel.Suite, size, maxIndex)
		}
		b, url, err := c.file(ctx, rel, f)
		if IsMissing(err) {
			missing = err
			continue
		}
		if err != nil {
			return nil, "", err
		}
		if b, err = decompress(url, suffix, b, want); err != nil {
			return nil, "", fmt.Errorf("read index: %w", err)
		}
		return bytes.NewReader(b), url, nil
	}
	return nil, "", fmt.Errorf("read index %s of %s: %w", file, rel.Suite, missing)
}

func decompress(url, suffix string, b []byte, want File) ([]byte, error) {
	plain, release, err := deb.Decompress(suffix, bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	defer release()
	var out bytes.Buffer
	if _, err := out.ReadFrom(digest.NewReader(url+", decompressed", plain, want.Size, want.SHA256)); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// file gets a file and compares it with the Release. The name by hash comes first: it stays valid while the mirror is updated.
func (c *Client) file(ctx context.Context, rel *Release, f File) ([]byte, string, error) {
	dir := "dists/" + rel.Suite + "/"
	var (
		buf bytes.Buffer
		url string
		err error
	)
	for _, name := range []string{path.Dir(f.Path) + "/by-hash/SHA256/" + f.SHA256.String(), f.Path} {
		url = c.Mirrors.URL(Of(rel.Suite), dir+name)
		err = c.get(ctx, url, func(body io.Reader) error {
			buf.Reset()
			_, err := buf.ReadFrom(digest.NewReader(url, body, f.Size, f.SHA256))
			return err
		})
		if !IsMissing(err) {
			break
		}
	}
	if mismatch := (*digest.MismatchError)(nil); errors.As(err, &mismatch) {
		err = fmt.Errorf("verify index: %w", err)
	}
	return buf.Bytes(), url, err
}

// get reads a URL from the start, again if the connection breaks. read may be called several times.
func (c *Client) get(ctx context.Context, url string, read func(io.Reader) error) error {
	const (
		attempts = 3
		pause    = time.Second
	)
	for n := 1; ; n++ {
		err := c.attempt(ctx, url, read)
		if err == nil || ctx.Err() != nil || n == attempts || !Transient(err) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (c *Client) attempt(ctx context.Context, url string, read func(io.Reader) error) error {
	body, _, err := c.Getter.Get(ctx, url, 0)
	if err != nil {
		return err
	}
	defer body.Close()
	return read(body)
}
