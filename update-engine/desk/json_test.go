package desk

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/repotest"
)

// decoded is the one value that a command has printed with --json. A field that T does not have is an error.
func decoded[T any](s *story) T {
	s.t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(s.out))
	d.DisallowUnknownFields()
	err := d.Decode(&v)
	if _, end := d.Token(); err != nil || end != io.EOF {
		s.t.Fatalf("%v, %v: %s", err, end, s.out)
	}
	return v
}

func TestJSON(t *testing.T) {
	s := newStory(t)
	build := repotest.NewBuild(t, "1.0.1")
	s.run("init --repo {}/repo --keys {}/keys --json --quiet")
	var i initialised
	if err := json.Unmarshal([]byte(s.out), &i); err != nil || i.Anchor != s.path("repo/metadata/1.root.json") || len(i.NewKeys) != 5 {
		t.Errorf("init: %v, %s", err, s.out)
	}
	s.run("stage --fast --repo {}/repo --json --quiet " + build.Dir)
	var st staged
	if err := json.Unmarshal([]byte(s.out), &st); err != nil || st.Version != "1.0.1" || st.Payloads["full"] == 0 || st.RootHash != build.Release.Root.RootHash.String() {
		t.Errorf("stage: %v, %s", err, s.out)
	}
	if s.err != "" {
		t.Errorf("not quiet: %s", s.err)
	}
	s.run("discard --repo {}/repo --quiet")
	s.run("stage --fast --repo {}/repo --json " + build.Dir)
	if n := strings.Count(s.err, "100 %\n"); n < 2 || json.Unmarshal([]byte(s.out), &st) != nil { // what is slow says how far it is, beside the result
		t.Errorf("%d steps are said to be done: %s", n, s.err)
	}
	s.run("sign --repo {}/repo --keys {}/keys --json")
	var sg signed
	if err := json.Unmarshal([]byte(s.out), &sg); err != nil || len(sg.By) != 1 || sg.Needed[0].Have != 1 || len(sg.Summary) < 3 {
		t.Errorf("sign: %v, %s", err, s.out)
	}
	s.run("publish --repo {}/repo --keys {}/keys --channel stable --version 1.0.1 --json")
	var p repo.Publication
	if err := json.Unmarshal([]byte(s.out), &p); err != nil || p.Targets != 2 || p.Channel.Release != "1.0.1" {
		t.Errorf("publish: %v, %s", err, s.out)
	}
	s.run("status --repo {}/repo --json")
	var status repo.Status
	if err := json.Unmarshal([]byte(s.out), &status); err != nil || len(status.Roles) != 5 || status.Releases[0].Payloads["full"] != st.Payloads["full"] || status.Channels[0].Channel != "stable" {
		t.Errorf("status: %v, %s", err, s.out)
	}
	s.run("verify --repo {}/repo --json")
	var v verified
	if err := json.Unmarshal([]byte(s.out), &v); err != nil || v.Releases != 1 || len(v.Applied) != 1 || v.Channels[0].Version != "1.0.1" {
		t.Errorf("verify: %v, %s", err, s.out)
	}
}
