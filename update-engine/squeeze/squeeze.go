// Package squeeze packs the streams of payloads as small as the release desk can wait for: it is the payload.Packer of what is published.
//
//	stream, with a prefix ─▶ zstd -19 --patch-from            ┐
//	stream                ─▶ bzip2 -9, zstd -19 if it may win ┴▶ the smaller one
//
// The zstd is that of the tools tree, so that every desk makes the same bytes; without a tree it is the host's, and without that the Go
// implementation at its best level, which is correct and makes about an eighth more. bzip2 is better at streams of differences, which are
// nearly all zeros. Machines link none of this: they unpack with what package payload imports.
package squeeze

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/update-engine/bzip2"
	"github.com/proa-os/proa/update-engine/payload"
)

// A Press packs. It is safe for concurrent use; each stream is packed by one thread.
type Press struct {
	name    string
	command func(ctx context.Context, args ...string) *exec.Cmd // nil for the Go implementation
}

// Open returns the best press there is here.
func Open() (*Press, error) {
	tools, err := tooltree.Open()
	if err == nil {
		return FromTools(tools), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	program, err := exec.LookPath("zstd")
	if err != nil {
		return &Press{name: "Go"}, nil
	}
	return &Press{"the host's zstd", func(ctx context.Context, args ...string) *exec.Cmd { return exec.CommandContext(ctx, program, args...) }}, nil
}

// FromTools returns a press that uses a tools tree.
func FromTools(t *tooltree.Tree) *Press {
	return &Press{"zstd of the tools tree", func(ctx context.Context, args ...string) *exec.Cmd { return t.Command(ctx, "zstd", args...) }}
}

// String says whose zstd it is.
func (p *Press) String() string { return p.name }

// Pack implements payload.Packer.
func (p *Press) Pack(ctx context.Context, data, prefix []byte) (payload.Codec, []byte, error) {
	if len(prefix) > 0 {
		z, err := p.zstd(ctx, data, prefix)
		return payload.Zstd, z, err
	}
	b := bzip2.Pack(data)
	_, quick, err := payload.Fast{}.Pack(ctx, data, nil)
	if err != nil || hopeless(len(data), len(quick), len(b)) {
		return payload.Bzip2, b, err
	}
	z, err := p.zstd(ctx, data, nil)
	if err == nil && len(b) < len(z) {
		return payload.Bzip2, b, nil
	}
	return payload.Zstd, z, err
}

// hopeless reports whether zstd at its best, which takes a hundred times as long as at its quickest, is not to be tried on a stream of n bytes that
// bzip2 makes so many of: it gains two fifths at most on streams of differences, and a quarter where they are few.
func hopeless(n, quick, bzip2 int) bool {
	return 2*bzip2 < quick || 64*bzip2 < n && 13*bzip2 < 10*quick
}

func (p *Press) zstd(ctx context.Context, data, prefix []byte) (packed []byte, err error) {
	if p.command == nil {
		return packGo(data, prefix)
	}
	dir, err := os.MkdirTemp("", "proa-squeeze-")
	if err != nil {
		return nil, fmt.Errorf("pack zstd: %w", err)
	}
	defer os.RemoveAll(dir)
	in := filepath.Join(dir, "stream")
	if err := os.WriteFile(in, data, 0o600); err != nil {
		return nil, fmt.Errorf("pack zstd: %w", err)
	}
	args := []string{"-19", "--single-thread", "--no-check", "--quiet", "--stdout"}
	if len(prefix) > 0 {
		ref := filepath.Join(dir, "prefix")
		if err := os.WriteFile(ref, prefix, 0o600); err != nil {
			return nil, fmt.Errorf("pack zstd: %w", err)
		}
		args = append(args, "--patch-from="+ref)
	}
	cmd := p.command(ctx, append(args, "--", in)...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("pack with %s: %w: %s", p, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out.Bytes(), nil
}

func packGo(data, prefix []byte) ([]byte, error) {
	const window = 16 << 20 // both together fit in it
	o := []zstd.EOption{zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(window)}
	if len(prefix) > 0 {
		o = append(o, zstd.WithEncoderDictRaw(0, prefix))
	}
	e, err := zstd.NewWriter(nil, o...)
	if err != nil {
		return nil, fmt.Errorf("pack zstd: %w", err)
	}
	defer e.Close()
	return e.EncodeAll(data, nil), nil
}
