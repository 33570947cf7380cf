package desk

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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
	if i := decoded[initialised](s); i.Anchor != s.path("repo/metadata/1.root.json") || len(i.NewKeys) != 5 {
		t.Errorf("init: %s", s.out)
	}
	s.run("stage --fast --repo {}/repo --json --quiet " + build.Dir)
	if st := decoded[madeJSON](s); st.Version != "1.0.1" || st.PayloadSizes["full"] == 0 || st.RootHash != build.Release.Root.RootHash.String() {
		t.Errorf("stage: %s", s.out)
	}
	if s.err != "" {
		t.Errorf("not quiet: %s", s.err)
	}
	s.run("discard --repo {}/repo --quiet")
	s.run("stage --fast --repo {}/repo --json " + build.Dir)
	if n := strings.Count(s.err, "100 %\n"); n < 2 { // what is slow says how far it is, beside the result
		t.Errorf("%d steps are said to be done: %s", n, s.err)
	}
	st := decoded[madeJSON](s)
	s.run("sign --repo {}/repo --keys {}/keys --json")
	if sg := decoded[signed](s); len(sg.By) != 1 || sg.Needed[0].Have != 1 || len(sg.Summary) < 3 {
		t.Errorf("sign: %s", s.out)
	}
	s.run("publish --repo {}/repo --keys {}/keys --channel stable --version 1.0.1 --json")
	if p := decoded[publicationJSON](s); p.Targets != 2 || p.Channel.Release != "1.0.1" {
		t.Errorf("publish: %s", s.out)
	}
	s.run("status --repo {}/repo --json")
	if status := decoded[repo.Status](s); len(status.Roles) != 5 || status.Releases[0].Payloads["full"] != st.PayloadSizes["full"] || status.Channels[0].Channel != "stable" {
		t.Errorf("status: %s", s.out)
	}
	s.run("verify --repo {}/repo --json")
	if v := decoded[verified](s); v.Releases != 1 || len(v.Applied) != 1 || v.Channels[0].Version != "1.0.1" {
		t.Errorf("verify: %s", s.out)
	}
}

// publicationJSON is what publish, plan and refresh print with --json, as scripts read it.
type publicationJSON struct {
	Files   []fileJSON `json:"files"`
	Root    int64      `json:"root_version"`
	Targets int64      `json:"targets_version"`
	Plan    int64      `json:"plan_version"`
	Expires time.Time  `json:"timestamp_expires"`
	Channel *planJSON  `json:"channel"`
	Gap     bool       `json:"gap"`
}

type planJSON struct {
	Format    int        `json:"format"`
	Channel   string     `json:"channel"`
	Release   string     `json:"release"`
	NotBefore *time.Time `json:"not_before"`
	Waves     []waveJSON `json:"waves"`
	Halted    bool       `json:"halted"`
	Urgent    bool       `json:"urgent"`
}

type waveJSON struct {
	From    time.Time `json:"from"`
	Percent int       `json:"percent"`
}

// requestJSON is what rotate and renew print with --json.
type requestJSON struct {
	Summary    []string        `json:"summary"`
	Signatures []signatureJSON `json:"signatures"`
}

type signatureJSON struct {
	File  string   `json:"file"`
	Keys  string   `json:"keys"`
	Have  int      `json:"signatures"`
	Need  int      `json:"needed"`
	By    []string `json:"signed_by"`
	NotBy []string `json:"not_signed_by"`
}

// rehearsed types a command with --json, first as a dry run, which must change nothing and say the same.
func rehearsed[T any](s *story, line string) T {
	s.t.Helper()
	s.same(line + " --json --dry-run")
	would := decoded[T](s)
	before := tree(s.t, s.dir)
	s.run(line + " --json")
	if did := decoded[T](s); !reflect.DeepEqual(would, did) {
		s.t.Errorf("release %s: the dry run said\n%+v\nit did\n%+v", line, would, did)
	}
	if tree(s.t, s.dir) == before {
		s.t.Errorf("release %s changed nothing", line)
	}
	return decoded[T](s)
}

// published checks that files were written as was said, in this order, and removes them from what was said. In the names, * stands for a hash.
func (s *story) published(p *publicationJSON, names ...string) {
	s.t.Helper()
	if len(p.Files) != len(names) {
		s.t.Fatalf("files %+v, want %q", p.Files, names)
	}
	for i, f := range p.Files {
		if ok, err := filepath.Match(names[i], f.Name); !ok || err != nil || s.size(f.Name) != f.Size {
			s.t.Errorf("%+v, want %s with %d bytes, %v", f, names[i], s.size(f.Name), err)
		}
	}
	p.Files = nil
}

// What plan and refresh say is in the files that they say they have written.
func TestJSONOfPlanAndRefresh(t *testing.T) {
	s := newDeltaStory(t, "1.0.0", "1.0.1")
	day := 24 * time.Hour
	later := s.now.Add(36 * time.Hour)
	got := rehearsed[publicationJSON](s, "plan --repo {}/repo --keys {}/keys --channel stable --not-before +36h --waves 5@+0h,100@+24h --urgent --halt")
	named := got.Files[0].Name
	s.published(&got, "targets/plan/*.stable.json", "metadata/4.plan.json", "metadata/4.snapshot.json", "metadata/timestamp.json")
	want := publicationJSON{Plan: 4, Expires: s.now.Add(day), Channel: &planJSON{
		Format: 1, Channel: "stable", Release: "1.0.1", NotBefore: &later, Waves: []waveJSON{{s.now, 5}, {s.now.Add(day), 100}}, Halted: true, Urgent: true,
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("plan: got\n%+v\n%+v\nwant\n%+v\n%+v", got, got.Channel, want, want.Channel)
	}
	text, err := os.ReadFile(s.path("repo", named))
	if s.out = string(text); err != nil || !reflect.DeepEqual(decoded[planJSON](s), *want.Channel) {
		t.Errorf("%s: %v, %s", named, err, text)
	}

	s.now = later // a day and a half on, only the timestamp is short of time
	got = rehearsed[publicationJSON](s, "refresh --repo {}/repo --keys {}/keys")
	s.published(&got, "metadata/timestamp.json")
	if want := (publicationJSON{Expires: s.now.Add(day)}); !reflect.DeepEqual(got, want) {
		t.Errorf("refresh: got %+v, want %+v", got, want)
	}
	s.now = s.now.Add(3 * day)
	got = rehearsed[publicationJSON](s, "refresh --repo {}/repo --keys {}/keys")
	s.published(&got, "metadata/5.plan.json", "metadata/5.snapshot.json", "metadata/timestamp.json")
	if want := (publicationJSON{Plan: 5, Expires: s.now.Add(day)}); !reflect.DeepEqual(got, want) {
		t.Errorf("refresh: got %+v, want %+v", got, want)
	}
	s.run("verify --repo {}/repo --quick", "verified")
}

// What rotate and renew say waits for signatures until it is discarded, which says so, too.
func TestJSONOfWhatIsStaged(t *testing.T) {
	s := newDeltaStory(t)
	old := map[string]string{}
	for _, role := range []string{"root", "targets"} {
		found, err := filepath.Glob(s.path("keys", role+"-*.pub"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%q, %v", found, err)
		}
		old[role] = id(strings.TrimSuffix(found[0], ".pub"))
	}
	key := s.key("root")
	for _, c := range []struct {
		line    string
		summary []string // parts of lines
		needed  []signatureJSON
	}{
		{"rotate --repo {}/repo --role root --add " + key + ".pub", []string{"2.root.json, valid until 2027-01-01", "  + role root: key " + id(key)}, []signatureJSON{
			{File: "2.root.json", Keys: "root keys before", Need: 1, NotBy: []string{old["root"]}},
			{File: "2.root.json", Keys: "root keys from now on", Need: 1, NotBy: []string{old["root"], id(key)}},
		}},
		{"renew --repo {}/repo --role targets", []string{"2.targets.json, valid until 2027-01-11", "no release changes"}, []signatureJSON{
			{File: "2.targets.json", Keys: "targets keys", Need: 1, NotBy: []string{old["targets"]}},
		}},
	} {
		got := rehearsed[requestJSON](s, c.line)
		for _, part := range c.summary {
			if !strings.Contains(strings.Join(got.Summary, "\n"), part) {
				t.Errorf("%s: no %q in %q", c.line, part, got.Summary)
			}
		}
		if len(got.Signatures) != len(c.needed) {
			t.Fatalf("%s: %+v, want %+v", c.line, got.Signatures, c.needed)
		}
		for i, n := range got.Signatures {
			for k, whole := range n.NotBy {
				n.NotBy[k] = repo.Short(whole)
			}
			if want := c.needed[i]; n.By == nil || len(n.By) > 0 || !slices.Equal(n.NotBy, want.NotBy) || n.File != want.File || n.Keys != want.Keys || n.Have != 0 || n.Need != want.Need {
				t.Errorf("%s: %+v, want %+v", c.line, n, want)
			}
		}
		s.run("sign --repo {}/repo --keys {}/keys --dry-run", c.summary...) // it is what waits

		type discardedJSON struct {
			Discarded *bool `json:"discarded"`
		}
		discards := func(run func(string, ...string), flags string, want bool) {
			t.Helper()
			if run("discard --repo {}/repo --json" + flags); *decoded[discardedJSON](s).Discarded != want {
				t.Errorf("%s: %s", c.line, s.out)
			}
		}
		before := tree(t, s.path("repo/metadata"))
		discards(s.same, " --dry-run", false)
		discards(s.run, "", true)
		if _, err := os.Stat(s.path("repo/staged/request.json")); !errors.Is(err, fs.ErrNotExist) || tree(t, s.path("repo/metadata")) != before {
			t.Errorf("%s: discarded: %v", c.line, err)
		}
		discards(s.same, "", false)
		s.now = s.now.Add(10 * 24 * time.Hour)
	}
}
