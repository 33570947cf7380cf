// Command tuf-client is package tuf as a plain TUF client, for the conformance tests of the TUF project (tuf-conformance, CLIENT-CLI.md). It is in
// no image; machines run update-engine, which uses the same package.
//
//	tuf-client --metadata-dir DIR init TRUSTED_ROOT
//	tuf-client --metadata-dir DIR --metadata-url URL refresh
//	tuf-client --metadata-dir DIR --metadata-url URL --target-name NAME... --target-base-url URL --target-dir DIR download
//
// The tests set the time with faketime(1), which the Go runtime does not see: the environment FAKETIME_NOW (RFC 3339) counts, else what
// date(1) says. It exits with 1 on an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/tuf"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tuf-client:", err)
		os.Exit(1)
	}
}

// options are the flags of all commands.
type options struct {
	metadataDir, metadataURL string
	targetDir, targetURL     string
	targets                  []string
}

func run(ctx context.Context, args []string) error {
	var o options
	f := flag.NewFlagSet("tuf-client", flag.ContinueOnError)
	f.StringVar(&o.metadataDir, "metadata-dir", "", "trusted metadata")
	f.StringVar(&o.metadataURL, "metadata-url", "", "the repository's metadata")
	f.StringVar(&o.targetURL, "target-base-url", "", "the repository's targets")
	f.StringVar(&o.targetDir, "target-dir", "", "downloaded targets")
	f.Func("target-name", "a target to download, may be repeated", func(s string) error {
		o.targets = append(o.targets, s)
		return nil
	})
	if err := f.Parse(args); err != nil {
		return err
	}
	switch {
	case o.metadataDir == "":
		return errors.New("--metadata-dir is missing")
	case f.Arg(0) == "init" && f.NArg() == 2:
		return initialize(o, f.Arg(1))
	case f.Arg(0) == "refresh" && f.NArg() == 1:
		return o.with(ctx, (*tuf.Client).Refresh)
	case f.Arg(0) == "download" && f.NArg() == 1:
		return o.with(ctx, func(c *tuf.Client) error { return download(c, o) })
	}
	return errors.New("usage: tuf-client [flags] init TRUSTED_ROOT | refresh | download")
}

// anchorFile is the trust anchor in the metadata folder; it has no .json, because the tests take that for accepted metadata.
const anchorFile = "initial-root"

func initialize(o options, root string) error {
	b, err := os.ReadFile(root)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	for _, name := range []string{anchorFile, "root.json"} {
		if err := durable.WritePath(filepath.Join(o.metadataDir, name), b, 0o644); err != nil {
			return fmt.Errorf("init: %w", err)
		}
	}
	return nil
}

func (o options) with(ctx context.Context, do func(*tuf.Client) error) error {
	anchor, err := os.ReadFile(filepath.Join(o.metadataDir, anchorFile))
	if err != nil {
		return fmt.Errorf("read trust anchor: %w", err)
	}
	now, err := clock(ctx)
	if err != nil {
		return err
	}
	fetcher := &client.Client{Source: client.NewHTTP(30 * time.Second), Retry: client.Retry{Attempts: 1}}
	c, err := tuf.Open(ctx, tuf.Config{
		Fetcher: fetcher, Server: o.metadataURL, Metadata: o.metadataURL, Targets: o.targetURL, Anchor: anchor, State: o.metadataDir, Now: now, Plain: true,
	})
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

func clock(ctx context.Context) (time.Time, error) {
	if s := os.Getenv("FAKETIME_NOW"); s != "" {
		return time.Parse(time.RFC3339, s)
	}
	out, err := exec.CommandContext(ctx, "date", "+%s").Output()
	if err != nil {
		return time.Time{}, fmt.Errorf("ask date(1) for the time: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask date(1) for the time: %w", err)
	}
	return time.Unix(n, 0), nil
}

// maxTarget is what this client holds in memory; update-engine streams.
const maxTarget = 64 << 20

// download stores targets in one folder, by their escaped names. What is there already and whole is not fetched again.
func download(c *tuf.Client, o options) error {
	if err := c.Refresh(); err != nil {
		return err
	}
	for _, name := range o.targets {
		t, err := c.Target(name)
		if err != nil {
			return err
		}
		file := filepath.Join(o.targetDir, url.QueryEscape(name))
		if b, err := os.ReadFile(file); err == nil && t.Verify(b) == nil {
			continue
		}
		b, err := c.Read(name, maxTarget)
		if err != nil {
			return err
		}
		if err := durable.WritePath(file, b, 0o644); err != nil {
			return fmt.Errorf("store target %s: %w", name, err)
		}
	}
	return nil
}
