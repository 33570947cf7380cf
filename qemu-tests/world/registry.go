package world

import (
	"fmt"
	"net"
	"os"

	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// A Registry is the runtime's test registry, as machines reach it.
type Registry struct {
	*registrytest.Registry
}

// StartRegistry serves an empty registry on a free port of the loopback interface until Close. It falsifies what is in lab/tampered.
func StartRegistry() (*Registry, error) {
	r, err := registrytest.StartHandler("127.0.0.1:0", tamper)
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	return &Registry{r}, nil
}

// GuestHost is the registry's name for a machine: the first part of an image reference.
func (r *Registry) GuestHost() string {
	_, port, _ := net.SplitHostPort(r.Addr)
	return net.JoinHostPort(vm.HostAddress, port)
}

// PushHello pushes an image made of the tools tree's static busybox that says "hello starts" and serves page on port 8080.
func (r *Registry) PushHello(name, page string) error {
	_, err := r.PushPage(name, page)
	return err
}

// PushPage is PushHello, and returns the digest.
func (r *Registry) PushPage(name, page string) (digest string, err error) {
	tree, err := tooltree.Open()
	if err != nil {
		return "", err
	}
	busybox, err := os.ReadFile(tree.Path("usr/bin/busybox"))
	if err != nil {
		return "", fmt.Errorf("push %s: %w", name, err)
	}
	return r.PushBusybox(name, busybox, map[string]string{"/www/index.html": page},
		[]string{"/bin/sh", "-c", "echo hello starts; exec httpd -f -p 8080 -h /www"})
}
