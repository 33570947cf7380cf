// Package program compiles Proa's own programs for the image, so that every host makes the same bytes: static, without
// paths, version control stamps or build ids, for the image's architecture and its lowest level.
package program

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// flags go to go build and go list alike, so that both speak of the same packages.
var flags = []string{"-trimpath", "-buildvcs=false"}

const linkFlags = "-ldflags=-s -w -buildid="

// Build compiles packages (as ./init/cmd/init) of the module at dir into outDir, each under its last path element.
// The Go build cache makes a second call cheap.
func Build(ctx context.Context, dir, arch, outDir string, packages []string) error {
	if err := os.MkdirAll(outDir, 0o755); err != nil {
		return fmt.Errorf("compile programs: %w", err)
	}
	out, err := filepath.Abs(outDir)
	if err != nil {
		return fmt.Errorf("compile programs: %w", err)
	}
	args := append([]string{"build", "-o", out + "/", linkFlags}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Dir = dir
	cmd.Env = environment(arch)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("compile programs: %w\n%s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// Version returns the Go version the programs are compiled with.
func Version(ctx context.Context, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ask go for its version: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func environment(arch string) []string {
	return append(clean(os.Environ()), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOFLAGS=", "GOEXPERIMENT=")
}

// clean drops what would change the bytes.
func clean(env []string) []string {
	var out []string
	for _, e := range env {
		switch name, _, _ := strings.Cut(e, "="); name {
		case "CGO_ENABLED", "GOOS", "GOARCH", "GOAMD64", "GOFLAGS", "GOEXPERIMENT":
		default:
			out = append(out, e)
		}
	}
	return out
}
