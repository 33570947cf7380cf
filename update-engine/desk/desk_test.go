package desk

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/repotest"
)

// The literal steps of docs/releasing.md.
func TestReleaseByHand(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	repo, keys := filepath.Join(dir, "repo"), filepath.Join(dir, "keys")
	run := func(o Options) (string, error) {
		t.Helper()
		var out, progress bytes.Buffer
		o.Repo, o.Now, o.Out, o.Err = repo, func() time.Time { return now }, &out, &progress
		err := Run(t.Context(), o)
		if o.Quiet && progress.Len() > 0 {
			t.Errorf("%s: not quiet: %s", o.Command, progress.String())
		}
		return out.String(), err
	}
	must := func(o Options, want string) {
		t.Helper()
		if out, err := run(o); err != nil || !strings.Contains(out, want) {
			t.Fatalf("%s: got %q, %v, want %q", o.Command, out, err, want)
		}
	}
	root := filepath.Join(repo, "metadata/1.root.json")
	build := repotest.NewBuild(t, "1.0.1")
	must(Options{Command: "init", Keys: keys, Threshold: 2, OfflineKeys: 3}, "2 of 3 offline signatures are needed\ntrust anchor for machines: "+root)
	must(Options{Command: "stage", Args: []string{build.Dir}}, "full ")
	must(Options{Command: "sign", Keys: keys}, "signed: 3 of 2 needed signatures")
	must(Options{Command: "publish", Keys: keys, Channel: "stable", Version: "1.0.1"}, "channel stable has release 1.0.1")
	must(Options{Command: "verify", Root: root, Quiet: true}, "verified: channel stable has release 1.0.1")
	out, err := run(Options{Command: "verify", Root: root, JSON: true})
	var r result
	if err != nil || json.Unmarshal([]byte(out), &r) != nil || r.Version != "1.0.1" || r.Payloads["full"] == 0 || r.RootHash != build.Release.Root.RootHash.String() {
		t.Errorf("verify --json: %s, %v", out, err)
	}
	now = now.Add(36 * time.Hour)
	if _, err := run(Options{Command: "verify", Root: root}); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a day and a half later: %v", err)
	}
	must(Options{Command: "publish", Keys: keys}, "timestamp")
	must(Options{Command: "verify", Root: root}, "1.0.1")
	if _, err := run(Options{Command: "publish", Keys: keys, Channel: "stable", Version: "1.0.2"}); err == nil || !strings.Contains(err.Error(), "no release 1.0.2") {
		t.Errorf("a plan for a release that is not there: %v", err)
	}
	for _, o := range []Options{{Command: "init"}, {Command: "stage"}, {Command: "publish", Keys: keys, Version: "1"}, {Command: "x"}, {Command: "verify"}} {
		if _, err := run(o); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: got %v, want the usage", o, err)
		}
	}
}
