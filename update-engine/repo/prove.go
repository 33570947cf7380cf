package repo

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/payload"
)

// prove applies a payload and compares the outputs with the hashes that were taken from the inputs.
func prove(f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	m, err := payload.ReadManifest(f)
	if err != nil {
		return err
	}
	return m.Apply(f, &prover{})
}

// A prover is a payload.Sink that hashes what it is given, which must come in order.
type prover struct {
	hash hash.Hash
	size int64
}

// Begin implements payload.Sink.
func (p *prover) Begin(payload.Output) (io.WriterAt, error) {
	p.hash, p.size = sha256.New(), 0
	return p, nil
}

// WriteAt implements io.WriterAt.
func (p *prover) WriteAt(b []byte, off int64) (int, error) {
	if off != p.size {
		return 0, fmt.Errorf("written at %d, expected %d", off, p.size)
	}
	p.size += int64(len(b))
	return p.hash.Write(b)
}

// Checkpoint implements payload.Sink.
func (p *prover) Checkpoint(payload.Mark) error { return nil }

// Complete implements payload.Sink.
func (p *prover) Complete(o payload.Output) error {
	if got := digest.SHA256(p.hash.Sum(nil)); got != o.SHA256 || p.size != o.Size {
		return &digest.MismatchError{Name: o.Kind.String(), WantSize: o.Size, GotSize: p.size, WantSum: o.SHA256, GotSum: got}
	}
	return nil
}
