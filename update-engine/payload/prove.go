package payload

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/proa-os/proa/internal/digest"
)

// Prove applies the payload in body from its first byte to temporary files in dir and compares the outputs with the hashes that were
// taken from the inputs when it was made. It returns the manifest.
func Prove(body io.Reader, src Sources, dir string) (*Manifest, error) {
	m, err := ReadManifest(body)
	if err != nil {
		return nil, err
	}
	p := &prover{dir: dir}
	return m, errors.Join(m.Apply(body, src, Mark{}, p), p.close())
}

// A prover is a Sink that keeps what it is given, for the operations that read it back, and hashes it, which must come in order.
type prover struct {
	dir   string
	files []*os.File
	hash  hash.Hash
	size  int64
}

// Begin implements Sink.
func (p *prover) Begin(Output) (io.WriterAt, error) {
	f, err := os.CreateTemp(p.dir, ".proof-*")
	if err != nil {
		return nil, err
	}
	p.files = append(p.files, f)
	p.hash, p.size = sha256.New(), 0
	return proof{f, p}, nil
}

// Checkpoint implements Sink.
func (p *prover) Checkpoint(Mark) error { return nil }

// Complete implements Sink.
func (p *prover) Complete(o Output) error {
	if got := digest.SHA256(p.hash.Sum(nil)); got != o.SHA256 || p.size != o.Size {
		return &digest.MismatchError{Name: o.Kind.String(), WantSize: o.Size, GotSize: p.size, WantSum: o.SHA256, GotSum: got}
	}
	return nil
}

func (p *prover) close() error {
	var errs []error
	for _, f := range p.files {
		errs = append(errs, f.Close(), os.Remove(f.Name()))
	}
	return errors.Join(errs...)
}

// A proof is one output that is being proven.
type proof struct {
	*os.File
	p *prover
}

// WriteAt implements io.WriterAt.
func (f proof) WriteAt(b []byte, off int64) (int, error) {
	if off != f.p.size {
		return 0, fmt.Errorf("written at %d, expected %d", off, f.p.size)
	}
	f.p.size += int64(len(b))
	f.p.hash.Write(b)
	return f.File.WriteAt(b, off)
}
