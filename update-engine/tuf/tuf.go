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
// itself with the size and hash of a Target. The client workflow of the TUF specification (1.0.31, section 5) is go-tuf's
// updater, up to target information only: its own download would hold a payload in memory, and it writes its cache without fsync.
// So it works in a scratch folder, and what it accepted is stored durably in the state folder here.
//
// # What a caller may rely on
//
// No metadata older than the newest ever accepted is accepted again, also after a power cut and after a change of the anchor.
// Every answer of a server is bounded in length. A refusal is a *Refusal and says which file, why, and what was expected.
package tuf

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/durable"
)

// A Fetcher gets one file whole. More than limit bytes is an error; a file that the server does not have is an error
// that wraps fs.ErrNotExist.
type Fetcher interface {
	Fetch(ctx context.Context, url string, limit int64) ([]byte, error)
}

// Config says where to look and what to trust.
type Config struct {
	Fetcher Fetcher
	Server  string    // URL of the repository: metadata/ and targets/ are below it
	Anchor  []byte    // the trusted root.json
	State   string    // folder of the accepted metadata
	Now     time.Time // what expiry is judged by
}

// A Client knows one repository at one time.
type Client struct {
	cfg     Config
	updater *updater.Updater
	fetcher *recorder
	scratch string
}

// A Target is what signed metadata says about a name.
type Target struct {
	Name   string
	URL    string // where its bytes are, consistent snapshots applied
	Size   int64  // bytes
	SHA256 digest.SHA256
}

const (
	rootFile   = "root.json"
	anchorFile = "anchor" // hex SHA-256 of the anchor from which root.json was reached

	maxRoot, maxTimestamp, maxSnapshot, maxTargets = 512 << 10, 16 << 10, 2 << 20, 5 << 20
	maxRootRotations                               = 256
	maxDelegations                                 = 4
)

// roles in the order in which the updater accepts them.
var roles = []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS, "plan"}

// Open prepares a client; nothing is fetched yet. Close it.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if err := os.MkdirAll(cfg.State, 0o755); err != nil {
		return nil, fmt.Errorf("open trusted metadata: %w", err)
	}
	scratch, err := os.MkdirTemp("", "proa-tuf-")
	if err != nil {
		return nil, fmt.Errorf("open trusted metadata: %w", err)
	}
	c := &Client{cfg: cfg, scratch: scratch, fetcher: &recorder{ctx: ctx, fetcher: cfg.Fetcher}}
	if err := c.open(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close removes what Open made for the time of its use.
func (c *Client) Close() error { return os.RemoveAll(c.scratch) }

func (c *Client) open() error {
	start, err := c.startingRoot()
	if err != nil {
		return err
	}
	for _, role := range roles {
		b, err := os.ReadFile(filepath.Join(c.cfg.State, role+".json"))
		if err != nil || !usable(role, b) {
			continue // the updater fetches what is missing; a damaged file would stop it
		}
		if err := os.WriteFile(filepath.Join(c.scratch, role+".json"), b, 0o600); err != nil {
			return fmt.Errorf("open trusted metadata: %w", err)
		}
	}
	server := strings.TrimSuffix(c.cfg.Server, "/")
	c.updater, err = updater.New(&config.UpdaterConfig{
		MaxRootRotations: maxRootRotations, MaxDelegations: maxDelegations,
		RootMaxLength: maxRoot, TimestampMaxLength: maxTimestamp, SnapshotMaxLength: maxSnapshot, TargetsMaxLength: maxTargets,
		Fetcher: c.fetcher, LocalTrustedRoot: start, LocalMetadataDir: c.scratch, LocalTargetsDir: c.scratch,
		RemoteMetadataURL: server + "/metadata", RemoteTargetsURL: server + "/targets", PrefixTargetsWithHash: true,
	})
	if err != nil {
		return fmt.Errorf("trust anchor root.json is not usable (sha256 %s): %w; put the repository's own root.json there", digest.Of(start), err)
	}
	c.updater.UnsafeSetRefTime(c.cfg.Now)
	return nil
}

// startingRoot is the newest root reached from this anchor, or the anchor itself. Other metadata stays when the anchor
// changes: if the new root does not vouch for it, the updater ignores it, and if it does, it still bounds rollback.
func (c *Client) startingRoot() ([]byte, error) {
	if !usable(metadata.ROOT, c.cfg.Anchor) {
		return nil, fmt.Errorf("trust anchor root.json (%d bytes) is not TUF metadata that its own keys have signed: put the repository's own root.json there", len(c.cfg.Anchor))
	}
	sum, err := os.ReadFile(filepath.Join(c.cfg.State, anchorFile))
	if err != nil || strings.TrimSpace(string(sum)) != digest.Of(c.cfg.Anchor).String() {
		return c.cfg.Anchor, nil
	}
	root, err := os.ReadFile(filepath.Join(c.cfg.State, rootFile))
	if err != nil || !usable(metadata.ROOT, root) {
		return c.cfg.Anchor, nil
	}
	return root, nil
}

// Refresh brings the metadata up to date, or says why it is refused. What was accepted before a refusal is kept.
func (c *Client) Refresh() error {
	err := c.updater.Refresh()
	if saveErr := c.save(); err == nil && saveErr != nil {
		return saveErr
	}
	if err != nil {
		return c.explain(err)
	}
	return nil
}

// Target returns what the metadata says about a name. An unsigned name is a *Refusal.
func (c *Client) Target(name string) (Target, error) {
	info, err := c.updater.GetTargetInfo(name)
	if saveErr := c.save(); err == nil && saveErr != nil {
		return Target{}, saveErr
	}
	if err != nil {
		if err.Error() == fmt.Sprintf("target %s not found", name) {
			return Target{}, &Refusal{Reason: Unsigned, File: name, Detail: "no trusted role has signed it"}
		}
		return Target{}, c.explain(err)
	}
	sum, ok := info.Hashes["sha256"]
	if !ok || len(sum) != len(digest.SHA256{}) {
		return Target{}, fmt.Errorf("target %s: the metadata has no sha256 for it", name)
	}
	dir, base := path.Split(name)
	return Target{
		Name: name, Size: info.Length, SHA256: digest.SHA256(sum),
		URL: strings.TrimSuffix(c.cfg.Server, "/") + "/targets/" + dir + hex.EncodeToString(sum) + "." + base,
	}, nil
}

// Read returns the verified bytes of a target of at most limit bytes.
func (c *Client) Read(name string, limit int64) ([]byte, error) {
	t, err := c.Target(name)
	if err != nil {
		return nil, err
	}
	if t.Size > limit {
		return nil, fmt.Errorf("target %s has %d bytes, at most %d are read", name, t.Size, limit)
	}
	b, err := c.cfg.Fetcher.Fetch(c.fetcher.ctx, t.URL, t.Size)
	if err != nil {
		return nil, fmt.Errorf("fetch target %s: %w", name, err)
	}
	if got := digest.Of(b); int64(len(b)) != t.Size || got != t.SHA256 {
		return nil, &Refusal{Reason: Tampered, File: name, Detail: fmt.Sprintf(
			"expected %d bytes with sha256 %s, found %d bytes with %s", t.Size, t.SHA256, len(b), got)}
	}
	return b, nil
}

// save stores durably what the updater has accepted into the scratch folder. root.json goes before the note of the
// anchor it was reached from: cut between the two, the next run starts from the anchor again, which is always safe.
func (c *Client) save() error {
	for _, role := range roles {
		b, err := os.ReadFile(filepath.Join(c.scratch, role+".json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = saveFile(filepath.Join(c.cfg.State, role+".json"), b)
		}
		if err != nil {
			return fmt.Errorf("keep trusted metadata: %w", err)
		}
		if role == metadata.ROOT {
			if err := saveFile(filepath.Join(c.cfg.State, anchorFile), []byte(digest.Of(c.cfg.Anchor).String()+"\n")); err != nil {
				return fmt.Errorf("keep trusted metadata: %w", err)
			}
		}
	}
	return nil
}

func saveFile(name string, b []byte) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return durable.WritePath(name, b, 0o644)
}

// recorder is the updater's way to the Fetcher; it remembers the last file for explanations.
type recorder struct {
	ctx     context.Context
	fetcher Fetcher
	url     string
	body    []byte
	err     error // of the last fetch; what comes back then is about the network, not about a file
}

// DownloadFile implements go-tuf's fetcher.Fetcher.
func (r *recorder) DownloadFile(url string, limit int64, _ time.Duration) ([]byte, error) {
	b, err := r.fetcher.Fetch(r.ctx, url, limit)
	r.err = err
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: 404, URL: url}
	}
	if err != nil {
		return nil, err
	}
	r.url, r.body = url, b
	return b, nil
}
