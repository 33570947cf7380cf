package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNoHistory says that this checkout does not have the commit of a release.
var ErrNoHistory = errors.New("the checkout has no such commit: fetch its history (git fetch --unshallow)")

// BuildThen builds a release into dir as it was made then: from the sources of a commit of this repository, by the builder among them, of the Debian
// packages that they pin.
func (p *Programs) BuildThen(ctx context.Context, progress io.Writer, dir, version, commit string) (Image, error) {
	if err := p.buildThen(ctx, progress, dir, version, commit); err != nil {
		return Image{}, fmt.Errorf("build %s from %s: %w", version, commit, err)
	}
	return OpenImage(dir)
}

func (p *Programs) buildThen(ctx context.Context, progress io.Writer, dir, version, commit string) error {
	git := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = p.repo
		return cmd
	}
	if git("cat-file", "-e", commit+"^{commit}").Run() != nil {
		return ErrNoHistory
	}
	work, err := os.MkdirTemp(p.dir, "then-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	sources, bin := filepath.Join(work, "sources"), filepath.Join(work, "bin")
	if err := errors.Join(os.Mkdir(sources, 0o755), os.Mkdir(bin, 0o755)); err != nil {
		return err
	}
	archive := git("archive", "--format=tar", commit)
	unpack := exec.CommandContext(ctx, "tar", "-x", "-C", sources)
	var said bytes.Buffer
	archive.Stderr, unpack.Stderr = &said, &said
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		return err
	}
	if err := archive.Start(); err != nil {
		return err
	}
	if err := errors.Join(unpack.Run(), archive.Wait()); err != nil {
		return fmt.Errorf("%w\n%s", err, lastLines(said.String(), 10))
	}
	then := NewPrograms(sources, bin)
	p.building.Lock()
	defer p.building.Unlock()
	_, err = then.Build(ctx, progress, dir, version, "")
	return err
}
