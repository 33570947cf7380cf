// Package desk is what the release command does and prints, on top of package repo.
package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/repo"
)

// Usage is the short help.
const Usage = `usage: release COMMAND --repo DIR [options]

  init     --keys DIR [--threshold K] [--offline-keys N]   make keys and an empty repository
  stage    BUILD                                           take a build (an output folder of image-builder) in
  sign     --keys DIR                                      sign what is staged with the offline keys at hand
  publish  --keys DIR [--channel NAME --version X [--halt]]  make it current; alone: renew the timestamp (it lives a day)
  verify   --root FILE [--channel NAME]                    read it as a machine does; --repo may be a URL

  --json   print the result as JSON      --quiet  no progress`

// ErrUsage asks for Usage.
var ErrUsage = errors.New("wrong command line")

const defaultChannel = "stable"

// Options are the command line.
type Options struct {
	Command                string
	Args                   []string
	Repo, Keys, Root       string
	Channel, Version       string
	Threshold, OfflineKeys int
	Halt, JSON, Quiet      bool
	Now                    func() time.Time
	Out, Err               io.Writer
}

// result is what a command has done; the fields that it does not know stay empty.
type result struct {
	Command  string           `json:"command"`
	Root     string           `json:"root,omitempty"` // file
	Version  string           `json:"version,omitempty"`
	Channel  string           `json:"channel,omitempty"`
	RootHash string           `json:"root_hash,omitempty"`
	Raw      int64            `json:"raw_size,omitempty"`
	Payloads map[string]int64 `json:"payload_sizes,omitempty"`
	Have     int              `json:"signatures,omitempty"`
	Needed   int              `json:"signatures_needed,omitempty"`
	text     string
}

// Run does one command.
func Run(ctx context.Context, o Options) error {
	if o.Repo == "" {
		return ErrUsage
	}
	d := &repo.Desk{Dir: o.Repo, Keys: repo.KeyDir(o.Keys), Now: o.Now}
	if !o.Quiet {
		d.Progress = (&bar{w: o.Err, start: time.Now()}).show
	}
	var r *result
	var err error
	switch {
	case o.Command == "init" && o.Keys != "" && len(o.Args) == 0:
		r, err = initialise(o)
	case o.Command == "stage" && len(o.Args) == 1:
		r, err = stage(ctx, d, o.Args[0])
	case o.Command == "sign" && o.Keys != "" && len(o.Args) == 0:
		r, err = sign(d)
	case o.Command == "publish" && o.Keys != "" && len(o.Args) == 0 && (o.Version == "") == (o.Channel == ""):
		r, err = publish(d, o)
	case o.Command == "verify" && o.Root != "" && len(o.Args) == 0:
		r, err = verify(ctx, o)
	default:
		return ErrUsage
	}
	if err != nil {
		return err
	}
	r.Command = o.Command
	if !o.JSON {
		_, err := fmt.Fprintln(o.Out, r.text)
		return err
	}
	e := json.NewEncoder(o.Out)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func initialise(o Options) (*result, error) {
	n := repo.Thresholds{Keys: max(o.OfflineKeys, o.Threshold), Needed: o.Threshold}
	if _, err := repo.Init(o.Repo, repo.KeyDir(o.Keys), n, o.Now()); err != nil {
		return nil, err
	}
	root := filepath.Join(o.Repo, "metadata", "1.root.json")
	return &result{Root: root, text: fmt.Sprintf("made repository %s; %d of %d offline signatures are needed\ntrust anchor for machines: %s\nkeys: %s; take root-*.pem and targets-*.pem offline",
		o.Repo, n.Needed, n.Keys, root, o.Keys)}, nil
}

func stage(ctx context.Context, d *repo.Desk, dir string) (*result, error) {
	s, err := d.Stage(ctx, dir, repo.Options{})
	if err != nil {
		return nil, err
	}
	return &result{
		Version: s.Release.Version, RootHash: s.Release.Root.RootHash.String(), Raw: s.Raw, Payloads: s.Payloads,
		text: fmt.Sprintf("staged release %s for %s, root hash %s\n%s\nnext: release sign, release publish", s.Release.Version, s.Release.Arch, s.Release.Root.RootHash, table(s.Raw, s.Payloads)),
	}, nil
}

// table shows how much travels.
func table(raw int64, payloads map[string]int64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s %14s %8s\n%-10s %14d %8s", "payload", "bytes", "of raw", "raw", raw, "100.0 %")
	for _, name := range []string{"full"} {
		fmt.Fprintf(&b, "\n%-10s %14d %6.1f %%", name, payloads[name], 100*float64(payloads[name])/float64(raw))
	}
	return b.String()
}

func sign(d *repo.Desk) (*result, error) {
	have, needed, err := d.Sign()
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("signed: %d of %d needed signatures", have, needed)
	if have < needed {
		text += "; run release sign where the other keys are"
	}
	return &result{Have: have, Needed: needed, text: text}, nil
}

func publish(d *repo.Desk, o Options) (*result, error) {
	versions, err := d.Versions()
	if err != nil {
		return nil, err
	}
	if o.Version != "" && !slices.Contains(versions, o.Version) {
		return nil, fmt.Errorf("publish: there is no release %s: stage it first, or choose one of: %s", o.Version, strings.Join(versions, " "))
	}
	if err := d.Publish(o.Channel, plan.Plan{Release: o.Version, Halted: o.Halt}); err != nil {
		return nil, err
	}
	text := "published; the timestamp is good for a day"
	if o.Channel != "" {
		text = fmt.Sprintf("published: channel %s has release %s", o.Channel, o.Version)
		if o.Halt {
			text += ", halted"
		}
	}
	return &result{Channel: o.Channel, Version: o.Version, text: text}, nil
}

func verify(ctx context.Context, o Options) (*result, error) {
	anchor, err := os.ReadFile(o.Root)
	if err != nil {
		return nil, fmt.Errorf("read trust anchor: %w", err)
	}
	channel := o.Channel
	if channel == "" {
		channel = defaultChannel
	}
	server, source := o.Repo, client.Source(client.NewHTTP(30*time.Second))
	if !strings.HasPrefix(server, "http://") && !strings.HasPrefix(server, "https://") {
		source = client.Folder{}
		if server, err = client.FolderURL(o.Repo); err != nil {
			return nil, err
		}
	}
	v, err := repo.Verify(ctx, server, source, anchor, channel, o.Now())
	if err != nil {
		return nil, err
	}
	return &result{
		Version: v.Version, Channel: channel, RootHash: v.RootHash.String(), Raw: v.Raw, Payloads: v.Payloads,
		text: fmt.Sprintf("verified: channel %s has release %s for %s, root hash %s\n%s", channel, v.Version, v.Arch, v.RootHash, table(v.Raw, v.Payloads)),
	}, nil
}

// bar prints a line for each tenth of a stage.
type bar struct {
	w     io.Writer
	start time.Time
	stage string
	tenth int64
}

func (b *bar) show(stage string, done, total int64) {
	tenth := done * 10 / max(total, 1)
	if stage == b.stage && tenth == b.tenth {
		return
	}
	b.stage, b.tenth = stage, tenth
	fmt.Fprintf(b.w, "%5.1f s  %s %3d %%\n", time.Since(b.start).Seconds(), stage, done*100/max(total, 1))
}
