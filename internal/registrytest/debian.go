package registrytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/proa-os/proa/internal/tooltree"
)

// A Debian is Debian's docker-registry, which keeps to the specification more closely than the one in memory.
type Debian struct {
	Addr   string // host:port it listens on
	server *exec.Cmd
}

// StartDebian serves an empty registry without TLS on a port of its own; dir holds its files. user may read and write with the password; if it is "", everybody may.
func StartDebian(ctx context.Context, judges *tooltree.Tree, dir, user, password string) (*Debian, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start docker-registry: %w", err)
	}
	d := &Debian{Addr: l.Addr().String()}
	l.Close()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/registry}}\nhttp: {addr: %s}\n", dir, d.Addr)
	file := filepath.Join(dir, "registry.yml")
	var said bytes.Buffer
	if user != "" {
		hash, herr := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		passwords := filepath.Join(dir, "htpasswd")
		err = errors.Join(herr, os.WriteFile(passwords, fmt.Appendf(nil, "%s:%s\n", user, hash), 0o644))
		config += fmt.Sprintf("auth: {htpasswd: {realm: x, path: %s}}\n", passwords)
	}
	if err = errors.Join(err, os.WriteFile(file, []byte(config), 0o644)); err == nil {
		d.server = judges.Command(ctx, "docker-registry", "serve", file)
		d.server.Env = slices.DeleteFunc(d.server.Environ(), func(v string) bool { return strings.HasPrefix(v, "REGISTRY_") }) // they are its configuration, and podman's
		d.server.Stdout, d.server.Stderr = &said, &said
		err = d.server.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start docker-registry: %w", err)
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", d.Addr); err == nil {
			c.Close()
			return d, nil
		}
		if time.Since(start) > 30*time.Second {
			d.Close()
			return nil, fmt.Errorf("start docker-registry: it does not listen: %s", &said)
		}
	}
}

// Close ends it.
func (d *Debian) Close() {
	_ = d.server.Process.Kill()
	_ = d.server.Wait() // it was killed
}
