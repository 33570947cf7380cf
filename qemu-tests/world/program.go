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
	"strings"
	"sync"
)

// Programs builds and runs programs of this repository.
type Programs struct {
	repo, dir string

	building sync.Mutex // held while a release is built: two builds do not share a folder

	mu    sync.Mutex
	built map[string]string // program file by package folder
}

// NewPrograms builds programs of the repository in repo into dir, each when it is first run.
func NewPrograms(repo, dir string) *Programs {
	return &Programs{repo: repo, dir: dir, built: map[string]string{}}
}

// FindRepository returns the folder of this module: the working directory or the nearest one above it with a go.mod.
func FindRepository() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find repository: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find repository: no go.mod in %s or above; run this inside the repository", start)
		}
	}
}

// Run runs the program whose main package is in the folder pkg (such as update-engine/cmd/release), in the
// repository's folder, and returns its standard output. progress, which may be nil, gets its standard error as it comes.
func (p *Programs) Run(ctx context.Context, progress io.Writer, pkg string, args ...string) (string, error) {
	file, err := p.build(ctx, pkg)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.repo, &stdout, &stderr
	if progress != nil {
		cmd.Stderr = io.MultiWriter(&stderr, progress)
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, context.Cause(ctx))
		}
		return stdout.String(), fmt.Errorf("run %s %s: %w\n%s", filepath.Base(pkg), strings.Join(args, " "), err, lastLines(stderr.String(), 30))
	}
	return stdout.String(), nil
}

func (p *Programs) build(ctx context.Context, pkg string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if file := p.built[pkg]; file != "" {
		return file, nil
	}
	file, err := filepath.Abs(filepath.Join(p.dir, filepath.Base(pkg)))
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", file, "./"+pkg)
	cmd.Dir = p.repo
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, lastLines(string(out), 30))
	}
	p.built[pkg] = file
	return file, nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
