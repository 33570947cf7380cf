// Package fetch is the wall between the network and root: a process without privileges that talks to registries, and the
// pipe to it.
//
//	containerctl (root)                          containerctl fetch (user proa-fetch, no capabilities)
//	  registries.conf, auth files, policy
//	  image.Resolve, trust, store      ──────>   stdin: endpoints, then questions, JSON lines
//	  compares every digest            <──────   stdout: frames of bytes
//
// Who does what, and why:
//
//   - The fetcher speaks TCP, TLS, HTTP and token protocols with strangers. It holds credentials and nothing else: no file of the
//     machine is open in it, it writes none (RLIMIT_FSIZE is 0), and it decides nothing.
//   - Root's side reads bytes from a pipe, hashes them and puts them in a file of its own: that is all it does with what is not
//     verified. Because the file is root's, it cannot change between verification and use, and each blob is hashed once.
//   - Root decompresses. The digest in a manifest, and so a signature, is of the compressed blob: decompressing first, in
//     the fetcher, would give root a stream that nothing vouches for until its last byte. Behind the digest only an image's own author
//     can attack the decompressor, and that is Go with bounded windows and bounded output.
//
// A blob is verified whole before it is unpacked; while one is unpacked the others are fetched.
//
// Frames, numbers big-endian:
//
//	offset  size
//	0       4     number of the question
//	4       1     kind: 'd' bytes, 'e' the end, 'x' an error (text), 'n' not found (text)
//	5       3     length n, at most 256 KiB
//	8       n     bytes
package fetch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/image"
)

const (
	frameHeader = 8
	maxFrame    = 256 << 10
	maxText     = 16 << 10 // of an error
)

// Kinds of frames.
const (
	kindData     = 'd'
	kindEnd      = 'e'
	kindError    = 'x'
	kindNotFound = 'n'
)

// opening is the first line on the fetcher's standard input.
type opening struct {
	Endpoints []endpoint.Endpoint `json:"endpoints"`
}

// question is each further line.
type question struct {
	ID     uint32       `json:"id"`
	Op     string       `json:"op"` // manifest, blob, copy, referrers, push, check
	Name   string       `json:"name,omitempty"`
	Digest image.Digest `json:"digest,omitzero"`
	Offset int64        `json:"offset,omitempty"`
	Size   int64        `json:"size,omitempty"`
}

func putHeader(b []byte, id uint32, kind byte, n int) {
	binary.BigEndian.PutUint32(b, uint32(n))
	b[4] = kind
	copy(b[5:], b[1:4])
	binary.BigEndian.PutUint32(b, id)
}

type frame struct {
	id   uint32
	kind byte
	data []byte // valid until the next frame
}

// readFrame reads into buf, which holds maxFrame bytes.
func readFrame(r io.Reader, buf []byte) (frame, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	f := frame{id: binary.BigEndian.Uint32(h[:]), kind: h[4]}
	n := int(h[5])<<16 | int(h[6])<<8 | int(h[7])
	if n > maxFrame {
		return frame{}, fmt.Errorf("a frame of %d bytes, at most %d", n, maxFrame)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return frame{}, errors.Join(io.ErrUnexpectedEOF, err)
	}
	f.data = buf[:n]
	return f, nil
}
