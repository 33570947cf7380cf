package desk

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/proa-os/proa/update-engine/repotest"
)

// madeJSON is what stage and delta print with --json, as scripts read it.
type madeJSON struct {
	Version      string           `json:"version"`
	Arch         string           `json:"arch"`
	RootHash     string           `json:"root_hash"`
	RawSize      int64            `json:"raw_size"`
	PayloadSizes map[string]int64 `json:"payload_sizes"`
	Made         []payloadJSON    `json:"made"`
	Failed       []struct {
		From  string `json:"from"`
		Error string `json:"error"`
	} `json:"failed"`
	Files []fileJSON `json:"files"`
}

type payloadJSON struct {
	Release  string `json:"release"`
	Arch     string `json:"arch"`
	Kind     string `json:"kind"`
	From     string `json:"from"`
	Size     int64  `json:"size"`
	FullSize int64  `json:"full_size"`
	RawSize  int64  `json:"raw_size"`
	CreateNS int64  `json:"create_ns"`
	Dropped  bool   `json:"dropped"`
}

type fileJSON struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// from lists what the payloads start from.
func (m madeJSON) from() string {
	var list []string
	for _, p := range m.Made {
		list = append(list, p.From)
	}
	return strings.Join(list, " ")
}

// newDeltaStory is a repository with releases that differ by a few bytes. What a dry run leaves among temporary files is seen, too.
func newDeltaStory(t *testing.T, versions ...string) *story {
	s := newStory(t)
	if err := os.Mkdir(s.path("tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", s.path("tmp"))
	s.run("init --repo {}/repo --keys {}/keys")
	for _, v := range versions {
		s.release(similar(t, v))
	}
	return s
}

func similar(t *testing.T, version string) *repotest.Build {
	return repotest.Similar(t, version, 256<<10)
}

// release makes a build current.
func (s *story) release(b *repotest.Build) {
	s.t.Helper()
	s.run("stage --fast --repo {}/repo " + b.Dir)
	s.run("publish --repo {}/repo --keys {}/keys --channel stable --version " + b.Release.Version)
}

// size is that of a repository's only file whose name fits.
func (s *story) size(pattern string) int64 {
	s.t.Helper()
	found, err := filepath.Glob(s.path("repo", pattern))
	if err != nil || len(found) != 1 {
		s.t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	info, err := os.Stat(found[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return info.Size()
}

// rows are the cells of the lines that were printed.
func (s *story) rows() []string {
	var list []string
	for line := range strings.Lines(s.out) {
		list = append(list, strings.Join(strings.Fields(line), " "))
	}
	return list
}

// has fails unless a line of what was printed has these cells, to its end but for the time that a payload took.
func (s *story) has(row string) {
	s.t.Helper()
	for _, r := range s.rows() {
		rest, ok := strings.CutPrefix(r, row)
		var took float64
		if n, _ := fmt.Sscanf(rest, " %f s", &took); ok && (rest == "" || n == 1 && rest == fmt.Sprintf(" %.1f s", took)) {
			return
		}
	}
	s.t.Errorf("no row %q in\n%s", row, s.out)
}

// A delta is tried without a trace, then made, then published: the files, the JSON and the tables say the same.
func TestDelta(t *testing.T) {
	s := newDeltaStory(t, "1.0.0", "1.0.1", "1.0.2", "1.0.3")
	build := similar(t, "1.0.4")
	s.release(build)
	delta := "delta --fast --repo {}/repo "

	s.same(delta + "--dry-run --json")
	if m := decoded[madeJSON](s); m.from() != "1.0.1 1.0.2 1.0.3" { // the last three, unless told otherwise
		t.Errorf("%+v", m)
	}
	s.same(delta+"--last 2 --dry-run", "nothing was written", "from-1.0.2.payload", "from-1.0.3.payload", "staged/request.json")
	s.same(delta + "--last 1 --dry-run --json --quiet")
	would := decoded[madeJSON](s)
	s.run(delta + "--last 1 --json --quiet")
	did := decoded[madeJSON](s)
	if s.err != "" {
		t.Errorf("not quiet: %s", s.err)
	}
	folder := "targets/releases/1.0.4/amd64/"
	size, full, raw := s.size(folder+"*.from-1.0.3.payload"), s.size(folder+"*.full.payload"), build.Release.Root.HashOffset+build.Release.Boot.Size
	for _, m := range []*madeJSON{&would, &did} {
		if len(m.Made) != 1 || m.Made[0].CreateNS <= 0 {
			t.Fatalf("%+v", m)
		}
		m.Made[0].CreateNS = 0
		for _, f := range m.Files {
			if got := s.size(f.Name); got != f.Size {
				t.Errorf("%s has %d bytes, want %d", f.Name, got, f.Size)
			}
		}
	}
	want := madeJSON{
		Version: "1.0.4", Arch: "amd64", RootHash: build.Release.Root.RootHash.String(), RawSize: raw,
		PayloadSizes: map[string]int64{"full": full, "from 1.0.3": size}, Files: did.Files,
		Made: []payloadJSON{{Release: "1.0.4", Arch: "amd64", Kind: "delta", From: "1.0.3", Size: size, FullSize: full, RawSize: raw}},
	}
	if !reflect.DeepEqual(did, want) || !reflect.DeepEqual(would, want) || len(did.Files) != 3 {
		t.Errorf("got\n%+v\nas a dry run\n%+v\nwant\n%+v", did, would, want)
	}

	s.run(delta + "--version 1.0.4 --from 1.0.2,1.0.0")
	s.has("release kind from bytes % of full % of raw made in")
	row := func(from string) string {
		n := s.size(folder + "*.from-" + from + ".payload")
		if n*10 > full {
			t.Errorf("the delta from %s has %d of %d bytes", from, n, full)
		}
		return fmt.Sprintf("1.0.4 delta %s %d %.3g %.3g", from, n, 100*float64(n)/float64(full), 100*float64(n)/float64(raw))
	}
	s.has(row("1.0.0"))
	s.has(row("1.0.2"))
	if strings.Contains(s.out, "dropped") || strings.Contains(s.out, "delta 1.0.1") || strings.Contains(s.out, "delta 1.0.3") {
		t.Errorf("made what was not asked for: %s", s.out)
	}
	s.same(delta+"--from 1.0.3,1.0.2", "release 1.0.4: no delta to make")
	s.same(delta + "--from 1.0.3,1.0.2 --json") // those that were there before are among the sizes
	did.Made, did.Files, did.PayloadSizes = []payloadJSON{}, []fileJSON{}, map[string]int64{"full": full}
	for _, from := range []string{"1.0.0", "1.0.2", "1.0.3"} {
		did.PayloadSizes["from "+from] = s.size(folder + "*.from-" + from + ".payload")
	}
	if got := decoded[madeJSON](s); !reflect.DeepEqual(got, did) {
		t.Errorf("got\n%+v\nwant\n%+v", got, did)
	}

	s.run("publish --repo {}/repo --keys {}/keys", "targets 7")
	s.run("verify --repo {}/repo", "8 payloads applied", "gets release 1.0.4", "verified")
	for _, from := range []string{"1.0.0", "1.0.2", "1.0.3"} {
		s.has(row(from))
	}
	s.run("status --repo {}/repo")
	s.has(fmt.Sprintf("from 1.0.3 %d %.3g %.3g", size, 100*float64(size)/float64(full), 100*float64(size)/float64(raw)))
}

// What cannot be done is said, and nothing changes.
func TestDeltaRefuses(t *testing.T) {
	s := newDeltaStory(t, "1.0.0", "1.0.1")
	before := tree(t, s.dir)
	for _, c := range []struct {
		flags string
		code  int
		want  string
	}{
		{"--from 7.7.7", exitError, "there is no release 7.7.7 for amd64 before 1.0.1 to start from"},
		{"--from 1.0.0,7.7.7", exitError, "there is no release 7.7.7 for amd64 before 1.0.1 to start from"},
		{"--from 1.0.1", exitError, "there is no release 1.0.1 for amd64 before 1.0.1 to start from"},
		{"--version 7.7.7", exitError, "there is no release 7.7.7: stage it first"},
		{"--version 1.0.1 --arch arm64", exitError, "there is no release 1.0.1 arm64"},
		{"--from 1.0.0,", exitUsage, `--from "1.0.0,": expected versions, separated by commas`},
		{"--from ,", exitUsage, `--from ",": expected versions, separated by commas`},
		{"--last 0", exitUsage, "--last 0: expected at least 1"},
		{"--from 1.0.0 1.0.1", exitUsage, "arguments"},
	} {
		s.refused("delta --fast --repo {}/repo "+c.flags, c.code, c.want)
		if s.out != "" {
			t.Errorf("%s: printed %s", c.flags, s.out)
		}
	}
	if after := tree(t, s.dir); after != before {
		t.Errorf("got\n%s\nwant\n%s", after, before)
	}
}

// A delta that is no use is shown as dropped; with no other, nothing is staged and nothing is to be signed.
func TestDroppedDelta(t *testing.T) {
	s := newDeltaStory(t, "1.0.0")
	alien := repotest.Alien(t, "1.0.1", 256<<10)
	s.release(alien)
	s.same("delta --fast --repo {}/repo --json")
	m := decoded[madeJSON](s)
	if len(m.Made) != 1 || !m.Made[0].Dropped || m.Made[0].Size*100 <= m.Made[0].FullSize*60 || len(m.PayloadSizes) != 1 || !strings.Contains(s.out, `"files": []`) {
		t.Fatalf("got %s", s.out)
	}
	p := m.Made[0]
	dropped := fmt.Sprintf("1.0.1 delta 1.0.0 %d %.3g %.3g", p.Size, 100*float64(p.Size)/float64(p.FullSize), 100*float64(p.Size)/float64(p.RawSize))
	for _, flags := range []string{"", " --dry-run"} {
		s.same("delta --fast --repo {}/repo"+flags, "release 1.0.1 for amd64: no delta is worth its keeping, nothing was staged\n")
		s.hasDropped(dropped)
		if strings.Contains(s.out, "next:") || strings.Contains(s.out, "this would be") {
			t.Errorf("as if it had been staged: %s", s.out)
		}
	}
	s.run("discard --repo {}/repo", "nothing is staged")

	s.run("stage --fast --deltas 2 --repo {}/repo "+similar(t, "1.0.2").Dir, "staged release 1.0.2", "next: release sign")
	full, size := s.size("targets/releases/1.0.2/amd64/*.full.payload"), s.size("targets/releases/1.0.2/amd64/*.from-1.0.0.payload")
	raw := alien.Release.Root.HashOffset + alien.Release.Boot.Size
	s.has(fmt.Sprintf("1.0.2 full - %d 100 %.3g", full, 100*float64(full)/float64(raw)))
	s.has(fmt.Sprintf("1.0.2 delta 1.0.0 %d %.3g %.3g", size, 100*float64(size)/float64(full), 100*float64(size)/float64(raw)))
	s.hasDropped("1.0.2 delta 1.0.1 ")
	if found, err := filepath.Glob(s.path("repo/targets/releases/*/amd64/*.from-1.0.1.payload")); err != nil || len(found) > 0 {
		t.Errorf("kept: %q, %v", found, err)
	}
}

// hasDropped fails unless a line of what was printed begins with these cells and ends with the note that the delta was dropped.
func (s *story) hasDropped(row string) {
	s.t.Helper()
	for _, r := range s.rows() {
		if strings.HasPrefix(r, row) && strings.HasSuffix(r, " s dropped: above 60 % of full") {
			return
		}
	}
	s.t.Errorf("no dropped row %q in\n%s", row, s.out)
}

// A delta whose source is broken is named beside those that were made, as text and as JSON.
func TestFailedDeltasAreNamed(t *testing.T) {
	s := newDeltaStory(t, "1.0.0", "1.0.1", "1.0.2")
	found, err := filepath.Glob(s.path("repo/targets/releases/1.0.1/amd64/*.full.payload"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%q, %v", found, err)
	}
	if err := os.Truncate(found[0], 1000); err != nil {
		t.Fatal(err)
	}
	s.same("delta --fast --repo {}/repo --dry-run --json")
	if m := decoded[madeJSON](s); m.from() != "1.0.0" || len(m.Failed) != 1 || m.Failed[0].From != "1.0.1" || !strings.Contains(m.Failed[0].Error, found[0]) {
		t.Errorf("got %s", s.out)
	}
	s.run("delta --fast --repo {}/repo", "1.0.2    delta  1.0.0", "\nNOT made: the delta from 1.0.1, machines that run it take the full payload: "+found[0], "\nnext: release sign")
	s.refused("delta --fast --repo {}/repo", exitError, "delta from 1.0.1 to 1.0.2", found[0]) // nothing else is left to make
}
