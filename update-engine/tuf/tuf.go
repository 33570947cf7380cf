// Package tuf verifies a repository's metadata on the machine: it answers which bytes a name stands for, or refuses.
//
// # Parties and keys
//
// The trust anchor is a root.json in the image or put there by the provisioner. root (offline, k of n keys) names the
// keys of the other roles and of the next root. targets, the offline role that design.md calls `releases`, signs which
// releases exist. It delegates plan/* and nothing else to plan (online), which says what a channel gets. snapshot fixes the versions
// of both, timestamp (online, a day) the version of snapshot. Whoever holds the online keys can thus delay an update or hand out
// an existing release early, never make one.
//
// # In the flow
//
// The update agent opens a Client, refreshes, and asks for targets by name; small ones it reads here, payloads it streams
// itself with the size and hash of a Target. Formats, signatures and the order of the checks are those of the TUF specification (1.0.31, sections 4
// and 5), whose numbers stand beside the code; left out are succinct and multi-role delegations (TAPs 15 and 3). go-tuf, which the
// release desk writes with, judges it in tests, and the TUF project's conformance suite in `make judge-tuf`. go-tuf is not linked: its updater holds targets in
// memory, writes without fsync, takes a delegated role for verified whoever delegates to it, forgets nothing when only the snapshot's keys
// change (5.3.11), reads any spec_version and panics on a null in the wrong place; and it adds 3.6 MB to a program that is to be small.
//
// # What a caller may rely on
//
// No metadata older than the newest ever accepted is accepted again, also after a power cut and after a change of the anchor, until the
// keys of timestamp or snapshot are replaced. What is accepted is on the disk before anything that builds on it is asked for. Every answer of a
// server is bounded in length. A refusal is a *Refusal and says which file, why, what was expected, and what to do.
package tuf

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/digest"
)

// A Fetcher gets a file whole and hands it to accept with its entity tag, if it has one. More than limit bytes is an error; a file that no server
// has is an error that wraps fs.ErrNotExist. If accept returns an error, another server may be asked for the same file; the
// error at the end wraps it. When tag is not empty and the server says that the file with that tag has not changed, accept gets nil.
type Fetcher interface {
	Get(ctx context.Context, url string, limit int64, tag string, accept func(b []byte, tag string) error) error
}

// Config says where to look and what to trust.
type Config struct {
	Fetcher Fetcher
	Server  string    // URL of the repository: metadata/ and targets/ are below it
	Anchor  []byte    // the trusted root.json
	State   string    // folder of the accepted metadata
	Now     time.Time // what expiry is judged by

	// Plain makes it a TUF client and nothing more, for conformance tests: every delegation counts, and so do lifetimes that nobody
	// gives a release. Otherwise only the offline role itself can sign anything but plan/*.
	Plain bool
	// Metadata and Targets are URLs in place of those below Server, for Plain clients.
	Metadata, Targets string
}

// A Client knows one repository at one time.
type Client struct {
	ctx       context.Context
	cfg       Config
	store     store
	root      *signedFile[rootContent]
	rootBytes []byte
	timestamp *signedFile[timestampContent]
	snapshot  *signedFile[snapshotContent]
	targets   map[string]*signedFile[targetsContent] // the offline role's and delegated ones, by name; see load
	fresh     bool                                   // Refresh has come to its end
}

// A Target is what signed metadata says about a name.
type Target struct {
	Name   string
	URL    string // where its bytes are, consistent snapshots applied
	Size   int64  // bytes
	SHA256 digest.SHA256

	info *targetFile
}

// Bounds of what a server can make us read, in bytes and steps.
const (
	maxRoot, maxTimestamp, maxSnapshot, maxTargets = 512 << 10, 16 << 10, 2 << 20, 5 << 20
	maxRootRotations                               = 256
	maxDelegations                                 = 32
)

// Open prepares a client; nothing is fetched yet. Close it.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	server := strings.TrimSuffix(cfg.Server, "/")
	if cfg.Metadata == "" {
		cfg.Metadata = server + "/metadata"
	}
	if cfg.Targets == "" {
		cfg.Targets = server + "/targets"
	}
	cfg.Metadata, cfg.Targets = strings.TrimSuffix(cfg.Metadata, "/"), strings.TrimSuffix(cfg.Targets, "/")
	c := &Client{ctx: ctx, cfg: cfg, targets: map[string]*signedFile[targetsContent]{}}
	var err error
	if c.root, c.rootBytes, err = startingRoot(cfg); err != nil {
		return nil, err
	}
	if c.store, err = openStore(cfg.State); err != nil {
		return nil, err
	}
	return c, nil
}

// Close clears what is kept of targets that nobody has asked for.
func (c *Client) Close() error {
	if !c.fresh {
		return nil
	}
	return c.store.prune()
}

// Target returns what the metadata says about a name. An unsigned name is a *Refusal.
func (c *Client) Target(name string) (Target, error) {
	info, err := c.find(name)
	if err != nil {
		return Target{}, err
	}
	t := Target{Name: name, Size: info.Length, info: info}
	sum := info.Hashes["sha256"]
	if parsed, err := digest.Parse(sum); err == nil {
		t.SHA256 = parsed
	} else if sum = info.Hashes["sha512"]; !c.cfg.Plain || !isSHA512(sum) {
		return Target{}, &Refusal{Reason: Garbage, File: name, Detail: "its signed metadata has no sha256: publish it again with release publish"}
	}
	dir, base := path.Split(name)
	if c.root.Signed.ConsistentSnapshot {
		base = sum + "." + base
	}
	t.URL = c.cfg.Targets + "/" + (&url.URL{Path: dir + base}).EscapedPath()
	return t, nil
}

// isSHA512 reports whether a string that will be a part of a URL is a digest.
func isSHA512(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha512.Size
}

// Verify compares bytes with what the metadata says about them.
func (t *Target) Verify(b []byte) error {
	if int64(len(b)) == t.Size && t.info.Hashes.verify(b) == nil {
		return nil
	}
	return &Refusal{Reason: Tampered, File: t.Name, Detail: fmt.Sprintf("expected %d bytes with sha256 %s, found %d bytes with %s: "+
		"the server or a proxy on the way changes files%s", t.Size, t.SHA256, len(b), digest.Of(b), elsewhere)}
}

// Read returns the verified bytes of a target of at most limit bytes. They are kept, and not fetched again while the metadata names them.
func (c *Client) Read(name string, limit int64) ([]byte, error) {
	t, err := c.Target(name)
	if err != nil {
		return nil, err
	}
	if t.Size > limit {
		return nil, fmt.Errorf("target %s has %d bytes, at most %d are read", name, t.Size, limit)
	}
	if b, ok := c.store.cached(t); ok {
		return b, nil
	}
	var content []byte
	err = c.cfg.Fetcher.Get(c.ctx, t.URL, t.Size, "", func(b []byte, _ string) error {
		content = b
		return t.Verify(b)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Refusal{Reason: Missing, File: name, Detail: fmt.Sprintf("the metadata names it, %s is not there: %v: publish the repository's targets folder before its metadata", t.URL, err), Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("fetch target %s: %w", name, err)
	}
	return content, c.store.cache(t, content)
}
