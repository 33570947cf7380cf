package repo_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/repotest"
)

func careful(t testing.TB) *repo.Desk {
	t.Helper()
	r := repotest.New(t)
	return &repo.Desk{Dir: r.Dir, Keys: r.Keys, Now: r.Now}
}

func issue(t testing.TB, d *repo.Desk, b *repotest.Build, o repo.Options) *repo.Staged {
	t.Helper()
	s, err := d.Stage(t.Context(), b.Dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.PublishStaged(&repo.PlanEdit{Channel: "stable", Version: b.Release.Version}); err != nil {
		t.Fatal(err)
	}
	return s
}

// spoil changes the last byte of a file.
func spoil(t testing.TB, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// applied lists the payloads that a check applied, as "release kind from".
func applied(t testing.TB, d *repo.Desk) []string {
	t.Helper()
	checked, err := d.Check(t.Context(), nil, false)
	if err != nil || len(checked.Problems) > 0 || len(checked.Unused) > 0 {
		t.Fatalf("%v, problems %q, unused %v", err, checked.Problems, checked.Unused)
	}
	var list []string
	for _, m := range checked.Applied {
		list = append(list, strings.TrimSpace(m.Release+" "+m.Kind+" "+m.From))
	}
	slices.Sort(list)
	return list
}

// Deltas lead from the last releases to the newest; what they are made from is not kept. One that is nearly as big as the full payload is
// not kept either.
func TestDeltas(t *testing.T) {
	t.Parallel()
	d := careful(t)
	for _, v := range []string{"1.0.0", "1.0.1", "1.0.2", "1.0.9"} {
		issue(t, d, repotest.Similar(t, v, 256<<10), repo.Options{})
	}
	s := issue(t, d, repotest.Similar(t, "1.0.10", 256<<10), repo.Options{Deltas: 3})
	if got, want := slices.Sorted(maps.Keys(s.Payloads)), []string{"from 1.0.1", "from 1.0.2", "from 1.0.9", "full"}; !slices.Equal(got, want) {
		t.Errorf("payloads %v, want %v", got, want)
	}
	for _, m := range s.Made {
		if m.Kind == "delta" && (m.Size*10 > m.Full || m.Took == 0) {
			t.Errorf("%+v", m)
		}
	}
	want := []string{"1.0.0 full", "1.0.1 full", "1.0.10 delta 1.0.1", "1.0.10 delta 1.0.2", "1.0.10 delta 1.0.9", "1.0.10 full", "1.0.2 full", "1.0.9 full"}
	if got := applied(t, d); !slices.Equal(got, want) {
		t.Errorf("applied %q, want %q", got, want)
	}

	// One more to the published release: it is staged, and what machines see stays as it was.
	more, err := d.Delta(t.Context(), repo.DeltaOptions{From: []string{"1.0.0", "1.0.9"}})
	if err != nil || len(more.Made) != 1 || more.Made[0].From != "1.0.0" {
		t.Fatalf("got %+v, %v, want the one that is not there", more, err)
	}
	if v, err := standard(t, d, serve(t, d.Dir)).read("stable"); err != nil || v != "1.0.10" {
		t.Errorf("while a delta is staged: %s, %v", v, err)
	}
	if _, err := d.PublishStaged(nil); err != nil {
		t.Fatal(err)
	}
	if got := applied(t, d); len(got) != len(want)+1 || !slices.Contains(got, "1.0.10 delta 1.0.0") {
		t.Errorf("applied %q", got)
	}

	s = issue(t, d, repotest.Alien(t, "2.0.0", 256<<10), repo.Options{Deltas: 1})
	if len(s.Made) != 2 || !s.Made[1].Dropped || s.Payloads["from 1.0.10"] != 0 || s.Release.Payloads.Deltas != nil {
		t.Errorf("a release with nothing in common: %+v", s)
	}
	if got := applied(t, d); slices.Contains(got, "2.0.0 delta 1.0.10") {
		t.Errorf("applied %q", got)
	}
	if _, err := d.Delta(t.Context(), repo.DeltaOptions{Version: "9.9.9"}); err == nil || !strings.Contains(err.Error(), "no release 9.9.9") {
		t.Errorf("got %v", err)
	}
	if _, err := d.Delta(t.Context(), repo.DeltaOptions{From: []string{"3.0.0"}}); err == nil || !strings.Contains(err.Error(), "no release 3.0.0") {
		t.Errorf("got %v", err)
	}
}

// A release that cannot be reached from everywhere gets no delta from there.
func TestDeltasFromWhereItCanBeReached(t *testing.T) {
	t.Parallel()
	d := careful(t)
	for _, v := range []string{"1.0.0", "1.0.1"} {
		issue(t, d, repotest.Similar(t, v, 256<<10), repo.Options{})
	}
	s := issue(t, d, repotest.Similar(t, "1.0.2", 256<<10), repo.Options{Deltas: 5, MinSource: "1.0.1"})
	if s.Release.MinSource != "1.0.1" || len(s.Made) != 2 || s.Made[1].From != "1.0.1" {
		t.Errorf("got %+v", s)
	}
	if _, err := d.Delta(t.Context(), repo.DeltaOptions{From: []string{"1.0.0"}}); err == nil || !strings.Contains(err.Error(), "1.0.2 takes updates from 1.0.1 on (min_source)") {
		t.Errorf("got %v, want why a delta from 1.0.0 is no use", err)
	}
}

// A release whose parts contradict each other, or whose payload is damaged, has no delta; all others have theirs, and the failures are named. Were
// there no other, it would be an error.
func TestDeltasAroundABrokenRelease(t *testing.T) {
	t.Parallel()
	d := careful(t)
	issue(t, d, repotest.Similar(t, "1.0.0", 256<<10), repo.Options{})
	issue(t, d, repotest.Similar(t, "1.0.1", 256<<10), repo.Options{})
	full, err := filepath.Glob(filepath.Join(d.Dir, "targets/releases/1.0.1/amd64/*.full.payload"))
	if err != nil || len(full) != 1 {
		t.Fatalf("%v, %v", full, err)
	}
	spoil(t, full[0])
	broken := repotest.Similar(t, "1.0.2", 256<<10)
	broken.Root[5000] ^= 1
	broken.Write(t)
	issue(t, d, broken, repo.Options{AllowInconsistent: true})

	s := issue(t, d, repotest.Similar(t, "1.0.3", 256<<10), repo.Options{Deltas: 3})
	if got, want := slices.Sorted(maps.Keys(s.Payloads)), []string{"from 1.0.0", "full"}; !slices.Equal(got, want) || len(s.Release.Payloads.Deltas) != 1 {
		t.Errorf("payloads %v, want %v; %+v", got, want, s.Release.Payloads)
	}
	if len(s.Failed) != 2 || s.Failed[0].From != "1.0.1" || !strings.Contains(s.Failed[0].Error, full[0]) || s.Failed[1].From != "1.0.2" || !strings.Contains(s.Failed[1].Error, "root hash") {
		t.Errorf("failed: %+v", s.Failed)
	}
	before := files(t, d.Dir)
	if _, err := d.Delta(t.Context(), repo.DeltaOptions{}); err == nil || !strings.Contains(err.Error(), "delta from 1.0.1 to 1.0.3") || !strings.Contains(err.Error(), "delta from 1.0.2 to 1.0.3") {
		t.Errorf("nothing but failures: got %v", err)
	}
	if after := files(t, d.Dir); len(after) != len(before) {
		t.Errorf("files %q, want %q", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
	}
}

// A copy of what is published has no folder staged/. It is verified, and goes on, like the repository itself.
func TestCopyWithoutStaged(t *testing.T) {
	t.Parallel()
	d := careful(t)
	issue(t, d, repotest.Similar(t, "1.0.0", 256<<10), repo.Options{})
	issue(t, d, repotest.Similar(t, "1.0.1", 256<<10), repo.Options{})
	if err := os.Remove(filepath.Join(d.Dir, "staged")); err != nil {
		t.Fatal(err)
	}
	want := []string{"1.0.0 full", "1.0.1 full"}
	if got := applied(t, d); !slices.Equal(got, want) {
		t.Errorf("applied %q, want %q", got, want)
	}
	if _, err := d.Delta(t.Context(), repo.DeltaOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PublishStaged(nil); err != nil {
		t.Fatal(err)
	}
	if got, want := applied(t, d), append([]string{"1.0.0 full", "1.0.1 delta 1.0.0"}, want[1:]...); !slices.Equal(got, want) {
		t.Errorf("applied %q, want %q", got, want)
	}
}

// A tampered delta is named.
func TestCheckNamesTheDelta(t *testing.T) {
	t.Parallel()
	d := careful(t)
	issue(t, d, repotest.Similar(t, "1.0.0", 256<<10), repo.Options{})
	issue(t, d, repotest.Similar(t, "1.0.1", 256<<10), repo.Options{Deltas: 1})
	found, err := filepath.Glob(filepath.Join(d.Dir, "targets/releases/1.0.1/amd64/*.from-1.0.0.payload"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	spoil(t, found[0])
	checked, err := d.Check(t.Context(), nil, false)
	if err != nil || len(checked.Problems) != 1 || !strings.Contains(checked.Problems[0], found[0]) {
		t.Errorf("%v, problems %q", err, checked.Problems)
	}
}

// A liar packs something else than it was given.
type liar struct{ payload.Fast }

func (l liar) Pack(ctx context.Context, data, prefix []byte) (payload.Codec, []byte, error) {
	data = slices.Clone(data)
	data[0] ^= 1
	return l.Fast.Pack(ctx, data, prefix)
}

// No payload is noted that does not give back what went in, and nothing of it stays.
func TestPayloadsAreProven(t *testing.T) {
	t.Parallel()
	d := careful(t)
	issue(t, d, repotest.Similar(t, "1.0.0", 256<<10), repo.Options{})
	if _, err := d.Stage(t.Context(), repotest.Similar(t, "1.0.1", 256<<10).Dir, repo.Options{}); err != nil {
		t.Fatal(err)
	}
	before := files(t, d.Dir)
	d.Packer = liar{}
	for name, do := range map[string]func() error{
		"full": func() error {
			_, err := d.Stage(t.Context(), repotest.Alien(t, "2.0.0", 256<<10).Dir, repo.Options{})
			return err
		},
		"delta": func() error { _, err := d.Delta(t.Context(), repo.DeltaOptions{}); return err },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "does not give back what went in") {
			t.Errorf("%s: got %v", name, err)
		}
		if after := files(t, d.Dir); fmt.Sprint(slices.Sorted(maps.Keys(after))) != fmt.Sprint(slices.Sorted(maps.Keys(before))) {
			t.Errorf("%s: files %q, want %q", name, slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
		}
	}
}
