// Package platform fetches a machine's config, ssh keys and hostname from where its platform keeps them.
//
// It stands at the very start of provisioning: package stage asks the platform that the kernel command line names, and gives the
// bytes to package config. A platform is an entry of one table (table.go): the origins its config can come from, each with a
// place (a metadata service, a drive, a device of the hypervisor), the item in it, and how that is written. Nothing is guessed: on the
// wrong platform, somebody else could configure the machine.
//
// A service that does not answer is asked again, with pauses that grow (package retry), for ten minutes at most; so is a drive
// that is not there yet. An answer that says "no such item" means that the machine has no config. Redirects are refused and proxies
// never used: a token of a metadata service goes to that service only. Answers are limited to config.MaxSize, before and after
// decompression; gzip is recognised wherever a config comes from.
//
// Metadata (keys, hostname) is a convenience: what is wrong with it is a warning, and the config always wins over it.
package platform

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/source"
)

// total is how long a platform may take to answer, metadataTotal how long each piece of metadata.
const (
	total         = 10 * time.Minute
	metadataTotal = 30 * time.Second
)

// A Machine is what platforms read from; tests give directories and servers of their own.
type Machine struct {
	Sys, Dev, Run *os.Root                                         // /sys, /dev, /run
	CommandLine   string                                           // of the kernel
	Getenv        func(string) string                              // os.Getenv
	Load          func(ctx context.Context, names ...string) error // loads kernel modules, by name or alias
	Route         func(address string) string                      // where a connection to host:port goes; nil: there
	Roots         *x509.CertPool                                   // nil: the system's
	Guest         Guest                                            // channels to hypervisors; zero: the real ones
	Total         time.Duration                                    // how long the platform may take; 0: ten minutes
}

// ThisMachine opens the real one.
func ThisMachine() (*Machine, error) {
	m := &Machine{Getenv: os.Getenv, Load: modprobe}
	for name, root := range map[string]**os.Root{"/sys": &m.Sys, "/dev": &m.Dev, "/run": &m.Run} {
		r, err := os.OpenRoot(name)
		if err != nil {
			return nil, err
		}
		*root = r
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	m.CommandLine = string(line)
	return m, nil
}

func modprobe(ctx context.Context, names ...string) error {
	if out, err := exec.CommandContext(ctx, "/sbin/modprobe", append([]string{"-ab"}, names...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("load kernel modules: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// An Answer is what a platform has for its machine.
type Answer struct {
	Name     string // what errors call the config: where it was
	Config   []byte // nil: none
	Keys     []string
	Hostname string
	Warnings []string // about metadata that could not be used
}

// A Platform is an entry of the table.
type Platform struct {
	ID      string
	origins []origin
	inTurn  bool // an origin is asked after the one before it has said that it has none; else all at once
	none    bool // there is never a config here: it comes by the command line
	report  func(ctx context.Context, s *session, stage string, err error) error
	remove  func(ctx context.Context, s *session) error
}

// origin is one place a config can be in, and what else is there.
type origin struct {
	at             place
	config         []string // paths, the first that is there and holds something counts
	as             func([]byte) ([]byte, error)
	skipCloud      bool  // a cloud-config is somebody else's and not ours
	facts          place // where hostname and keys are; nil: at the same place
	hostname, keys item
}

// item is a piece of metadata.
type item struct {
	path   string
	as     reading
	always bool // as is called with nothing if there is no such item: it looks elsewhere as well
}

// reading turns a piece of metadata into lines; get fetches what it refers to.
type reading func(get func(path string) ([]byte, error), raw []byte) ([]string, error)

// place is a service, a drive or a device. get answers fs.ErrNotExist if the place is there and has no such item, and
// source.ErrNeedNetwork if the session is offline and the place is not.
type place interface {
	get(ctx context.Context, s *session, path string) ([]byte, error)
	name(s *session, path string) string
}

// Lookup finds a platform by the id that upstream gives it.
func Lookup(id string) (Platform, error) {
	for _, p := range table() {
		if p.ID == id {
			return p, nil
		}
	}
	return Platform{}, fmt.Errorf("find platform %q: expected one of %s; set the kernel argument ignition.platform.id= to one of them", id, strings.Join(IDs(), ", "))
}

// IDs are the names of all platforms.
func IDs() (ids []string) {
	for _, p := range table() {
		ids = append(ids, p.ID)
	}
	return ids
}

// Argument returns the value of ignition.platform.id= in a kernel command line. Different values are an error.
func Argument(commandLine string) (string, error) {
	id, err := argument(commandLine, "ignition.platform.id")
	if err == nil && id == "" {
		err = errors.New("read the kernel command line: expected ignition.platform.id=, found none; add it")
	}
	return id, err
}

// ConfigURL returns the value of ignition.config.url= in a kernel command line, which wins over the platform; empty if there is none.
func ConfigURL(commandLine string) (string, error) {
	return argument(commandLine, "ignition.config.url")
}

func argument(commandLine, key string) (string, error) {
	var value string
	for _, word := range strings.Fields(commandLine) {
		v, ok := strings.CutPrefix(word, key+"=")
		switch {
		case !ok || v == "":
		case value != "" && value != v && key == "ignition.config.url":
			return "", fmt.Errorf("read the kernel command line: expected one %s=, found two that differ; remove one of them", key)
		case value != "" && value != v:
			return "", fmt.Errorf("read the kernel command line: expected one %s=, found %q and %q; remove one of them", key, value, v)
		default:
			value = v
		}
	}
	return value, nil
}

// Read asks the platform. Offline, it returns source.ErrNeedNetwork if there may be an answer on the network only. A machine without
// config has an Answer without one.
func (p Platform) Read(ctx context.Context, m *Machine, offline bool) (*Answer, error) {
	s := newSession(m, offline)
	defer s.close()
	if p.none {
		return &Answer{Name: "platform " + p.ID}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.total)
	defer cancel()
	o, a, err := p.first(ctx, s)
	if err != nil {
		return nil, err
	}
	a.Hostname, a.Warnings = s.hostname(ctx, o)
	keys, warnings := s.keys(ctx, o)
	a.Keys, a.Warnings = keys, append(a.Warnings, warnings...)
	return a, nil
}

// first finds the origin that counts, and the config in it.
func (p Platform) first(ctx context.Context, s *session) (origin, *Answer, error) {
	if !p.inTurn && len(p.origins) > 1 {
		return s.race(ctx, p.origins)
	}
	for n, o := range p.origins {
		a, err := s.config(ctx, o)
		if errors.Is(err, fs.ErrNotExist) && n < len(p.origins)-1 {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			return o, &Answer{Name: a.Name}, nil
		}
		return o, a, err
	}
	return origin{}, nil, fs.ErrNotExist
}

// Report tells the platform how a stage has ended, where it wants to know.
func (p Platform) Report(ctx context.Context, m *Machine, stage string, err error) error {
	if p.report == nil {
		return nil
	}
	s := newSession(m, false)
	defer s.close()
	ctx, cancel := context.WithTimeout(ctx, metadataTotal)
	defer cancel()
	return p.report(ctx, s, stage, err)
}

// Deletes reports whether the platform can delete user data.
func (p Platform) Deletes() bool { return p.remove != nil }

// Delete deletes the user data, so that what runs on the machine later cannot read it. ok is false where the platform cannot.
func (p Platform) Delete(ctx context.Context, m *Machine) (ok bool, err error) {
	if p.remove == nil {
		return false, nil
	}
	s := newSession(m, false)
	defer s.close()
	return true, p.remove(ctx, s)
}

// config reads an origin's config; fs.ErrNotExist means that it has none.
func (s *session) config(ctx context.Context, o origin) (*Answer, error) {
	a := &Answer{Name: o.at.name(s, o.config[0])}
	for _, path := range o.config {
		a.Name = o.at.name(s, path)
		raw, err := o.at.get(ctx, s, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return a, err
		}
		if o.as != nil {
			if raw, err = o.as(raw); err != nil {
				return a, fmt.Errorf("decode %s: %w", a.Name, err)
			}
		}
		if raw, err = gunzip(raw); err != nil {
			return a, fmt.Errorf("decompress %s: %w", a.Name, err)
		}
		if len(bytes.TrimSpace(raw)) == 0 || o.skipCloud && bytes.HasPrefix(raw, []byte("#cloud-config")) {
			continue
		}
		a.Config = raw
		return a, nil
	}
	return a, fs.ErrNotExist
}

// gunzip decompresses what begins as gzip does; others are returned as they are.
func gunzip(raw []byte) ([]byte, error) {
	if !bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		return raw, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return limited(z)
}

// limited reads at most config.MaxSize bytes.
func limited(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, config.MaxSize+1))
	if err == nil && len(b) > config.MaxSize {
		err = &tooLarge{}
	}
	return b, err
}

type tooLarge struct{}

func (*tooLarge) Error() string {
	return fmt.Sprintf("expected at most %d bytes, found more", config.MaxSize)
}

// grace is how long the others may still bring a config when one origin has said that it has none.
const grace = 5 * time.Second

// race asks all origins at once. The first config counts; that there is none counts when nobody brings one soon after,
// and nobody may have one that cannot be read: a machine is provisioned once.
func (s *session) race(ctx context.Context, all []origin) (origin, *Answer, error) {
	type result struct {
		o   origin
		a   *Answer
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(all))
	for _, o := range all {
		go func() {
			a, err := s.config(ctx, o)
			results <- result{o, a, err}
		}()
	}
	var none *result
	var errs []error
	needNetwork := false
	var over <-chan time.Time
	for n := 0; n < len(all); n++ {
		select {
		case r := <-results:
			switch {
			case r.err == nil:
				return r.o, r.a, nil
			case errors.Is(r.err, fs.ErrNotExist) && none == nil:
				none, over = &r, time.After(grace)
			case errors.Is(r.err, source.ErrNeedNetwork):
				needNetwork = true
			case !errors.Is(r.err, fs.ErrNotExist):
				errs = append(errs, r.err)
			}
		case <-over:
			n = len(all)
		}
	}
	switch {
	case needNetwork:
		return origin{}, nil, source.ErrNeedNetwork
	case len(errs) > 0:
		return origin{}, nil, errors.Join(errs...)
	}
	return none.o, &Answer{Name: none.a.Name}, nil
}
