// Package ctl is containerctl: what a person types to pull images and run containers.
//
// It is the driver of the runtime: it puts the store (package store), the fetcher (package registry), the bundle and the
// unit in order, and stays for none of it. Every container that runs in the background is a systemd unit, proa-<name>.service;
// this program writes the unit and asks systemd.
//
// Commands are a table (commands.go) for package command; each row registers its flags and gets a call (frame.go): the machine,
// the arguments and the open store. Flags mean what docker's mean; what is not there is an unknown flag. Data goes to standard
// output, as JSON with --json, everything else to standard error.
package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/oci"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/trust"
	"github.com/proa-os/proa/runtime/unit"
	"github.com/proa-os/proa/runtime/wiring"
)

// Units is the service manager: systemd, or in tests something that runs what units say.
type Units interface {
	Refresh(ctx context.Context, unit string, there bool) error // its file was written, or removed
	Start(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
	Listen(ctx context.Context, unit, link string, addresses []netip.Addr) error // a socket unit for wiring.Sockets
	Restart(ctx context.Context, unit string) error
	ResetFailed(ctx context.Context, unit string) error
	Queue(ctx context.Context, verb, unit string) error
	Freeze(ctx context.Context, unit string, on bool) error
	Restarts(ctx context.Context, unit string) (int, error)
	Watch(ctx context.Context, unit string, interval time.Duration, command []string) error
	Status(ctx context.Context, units []string) (map[string]unit.Status, error)
	Connect(ctx context.Context) // ahead of the first call
	Once(ctx context.Context, name, text string, f unit.Files) (<-chan unit.End, error)
	Limit(ctx context.Context, unit, text string) error // of a unit of Once that is up
	ControlGroup(ctx context.Context, unit string) (string, error)
}

// Env is the machine as this program sees it.
type Env struct {
	Store   string   // directory of the store
	Run     string   // bundles and PID files of this boot
	OCIRoot run.Root // state of oci-runtime
	UnitDir string
	// TransientDir has the units of containers that live for one run. It is empty at boot.
	TransientDir string
	OCIRuntime   []string // program and global flags
	Journal      string   // journalctl
	// JournalSocket takes entries for the journal.
	JournalSocket string
	Release       string // os-release, for --version
	FetchUser     string // who talks to registries
	Endpoints     endpoint.Config
	Trust         []string // directories of the trust policy
	Units         Units
	Networks      wiring.Wiring // its Sockets and Warn are set from Units and Err
	In            *os.File
	Out, Err      io.Writer
}

// Machine is the environment on a Proa machine.
func Machine() *Env {
	return &Env{
		Store:   store.DefaultDir,
		Run:     "/run/proa/containers",
		OCIRoot: oci.DefaultRoot,
		UnitDir: unit.DefaultDir, TransientDir: unit.TransientDir,
		OCIRuntime: []string{"/usr/bin/oci-runtime"},
		Journal:    "/usr/bin/journalctl", JournalSocket: "/run/systemd/journal/socket",
		Release:   "/usr/lib/os-release",
		FetchUser: "proa-fetch",
		Endpoints: endpoint.Machine(home()),
		Trust:     []string{trust.VendorDir, trust.AdminDir},
		Units:     new(unit.Systemd),
		Networks:  wiring.Wiring{Networks: wiring.DefaultNetworks, Run: wiring.DefaultRun, Namespaces: wiring.DefaultNamespaces},
		In:        os.Stdin, Out: os.Stdout, Err: os.Stderr,
	}
}

// home is where the user's configuration lies. A unit has no HOME.
func home() string {
	if h := os.Getenv("HOME"); h != "" || os.Geteuid() != 0 {
		return h
	}
	return "/root"
}

// release is the PRETTY_NAME of os-release.
func (e *Env) release() string {
	b, err := os.ReadFile(e.Release)
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				return strings.Trim(strings.TrimSpace(v), `"`)
			}
		}
	}
	return "not on Proa"
}

// errNotRoot says that the store is closed to this user.
var errNotRoot = errors.New("needs root")

func (e *Env) open() (*store.Store, error) {
	s, err := store.Open(e.Store)
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return nil, errNotRoot
	}
	if err == nil {
		s.Warn = e.warn
	}
	return s, err
}

// warn says what is wrong though the command goes on.
func (e *Env) warn(err error) {
	fmt.Fprintf(e.Err, "containerctl: warning: %v\n", printable(err.Error()))
}

// printable takes out what would steer a terminal: registries and containers have a say in errors.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func (e *Env) bundle(name string) string { return filepath.Join(e.Run, name) }

func (e *Env) json(v any) error {
	enc := json.NewEncoder(e.Out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
