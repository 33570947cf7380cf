// Package program compiles Proa's own programs for the image, so that every host with the same Go release makes the same bytes: static,
// without paths, version control stamps or build ids, for the image's architecture and its lowest level. The Go release is the one that
// go.mod's toolchain and the host decide on (https://go.dev/doc/toolchain).
package program

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// flags go to go build and go list alike, so that both speak of the same packages. Without HTTP/2 a program that links net/http is 0.37 MB
// smaller; every server that machines ask speaks HTTP/1.1, and large files are quicker over connections of their own.
var flags = append([]string{"-trimpath", "-buildvcs=false", "-tags=nethttpomithttp2"}, withoutInlining()...)

// withoutInlining is for code that runs once, that waits for a network, or whose time goes to the kernel: a program that has it all is 0.7 MB
// smaller, and as quick: what takes time in TLS is assembly, and oci-runtime reads config.json with a decoder of its own.
func withoutInlining() (flags []string) {
	for _, pattern := range []string{
		"github.com/proa-os/proa/ignition/...", "github.com/proa-os/proa/internal/...", "github.com/coreos/...", "github.com/aws/...", "github.com/vincent-petithory/...", "golang.org/x/sys/unix",
		"net", "net/http/...", "net/netip", "net/textproto", "net/url", "mime/...", "vendor/golang.org/x/net/...", "vendor/golang.org/x/text/...",
		"crypto/tls", "crypto/hpke", "crypto/x509/...", "encoding/asn1", "encoding/base64", "encoding/binary", "encoding/hex", "encoding/json", "encoding/pem", "log/...", "regexp", "regexp/syntax",
		// Of handshakes; P-256 is assembly.
		"math/big", "crypto/ecdh", "crypto/ecdsa", "crypto/ed25519", "crypto/elliptic", "crypto/rsa", "crypto/internal/fips140/bigmod",
		"crypto/internal/fips140/drbg", "crypto/internal/fips140/ecdh", "crypto/internal/fips140/ecdsa", "crypto/internal/fips140/ed25519",
		"crypto/internal/fips140/edwards25519/...", "crypto/internal/fips140/hkdf", "crypto/internal/fips140/hmac", "crypto/internal/fips140/mlkem",
		"crypto/internal/fips140/nistec/...", "crypto/internal/fips140/rsa", "crypto/internal/fips140/sha3", "crypto/internal/fips140/tls12",
		"crypto/internal/fips140/tls13", "vendor/golang.org/x/crypto/...", "golang.org/x/crypto/chacha20poly1305", "golang.org/x/sys/unix",
		"bufio", "compress/gzip", "container/list", "context", "errors", "flag", "fmt", "internal/poll", "io/...", "os/...", "path/...", "reflect", "sort", "strconv", "internal/strconv", "syscall", "time",
	} {
		flags = append(flags, "-gcflags="+pattern+"=-l")
	}
	return flags
}

// linkFlags leave out symbol tables, and the space between functions: the default of 32 bytes is for loops that Go aligns anyway. 4 is what
// an instruction of arm64 needs; a program of 8 MB is 61 kB smaller than with 16.
const linkFlags = "-ldflags=-s -w -buildid= -funcalign=4"

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

// settings are what changes the bytes of a program, at neutral values. None is empty: an empty variable does not win over what the user
// has stored with go env -w, cmd/go takes it for not set. GOEXPERIMENT is a list of differences to what the Go release has by default: "," is none, where the word none would
// switch off the default's own. The levels of architectures that are not built for do not matter.
func settings(arch string) []string {
	return []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-trimpath", "GOEXPERIMENT=,",
		"GOFIPS140=off", "GOWORK=off"}
}

// environment is the caller's with the settings instead of the caller's own.
func environment(arch string) []string {
	settings := settings(arch)
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.ContainsFunc(settings, func(s string) bool { return strings.HasPrefix(s, name+"=") })
	})
	return append(env, settings...)
}
