package agent_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/install/installtest"
	"github.com/proa-os/proa/update-engine/match"
	"github.com/proa-os/proa/update-engine/repotest"
	"github.com/proa-os/proa/update-engine/state"
)

// A fragile machine runs build first from the other slot, and loses power in a step of its disk or before a write to its state.
type fragile struct {
	*machine
	disk  *installtest.Disk
	first *repotest.Build
	next  *repotest.Build
	sick  bool // what the health check finds when next runs
}

// Boot, Passive and Source are those of the disk; the slot that first runs from is written by nobody.
func (f *fragile) Boot() (agent.BootFolder, error) { return f.disk, nil }
func (f *fragile) Passive() (install.File, error) {
	if f.running == f.next {
		return installtest.New(f.first.Root).Slot, nil
	}
	return f.disk.Slot, nil
}
func (f *fragile) Source() (agent.RootImage, error) {
	return content{bytes.NewReader(f.first.Root), f.first.Release.Root.HashOffset}, nil
}

type content struct {
	io.ReaderAt
	size int64
}

func (c content) Size() int64  { return c.size }
func (c content) Close() error { return nil }

// agent is a fresh process. It asks for the time before each write to its state, which is where the power may go too.
func (f *fragile) agent() *agent.Agent {
	a := f.machine.agent()
	a.Machine = f
	now := a.Now
	a.Now = func() time.Time {
		if !meterAsks() {
			f.disk.Moment("state")
		}
		return now()
	}
	return a
}

// meterAsks reports whether the time is for the progress of a job, which is told from anywhere and written nowhere.
func meterAsks() bool {
	var pcs [4]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for more := true; more; {
		var f runtime.Frame
		if f, more = frames.Next(); strings.HasSuffix(f.Function, ".(*Agent).progress") {
			return true
		}
	}
	return false
}

func (f *fragile) health() error {
	var sick error
	if f.sick && f.running == f.next {
		sick = errors.New("web: not running")
	}
	return f.machine.judge(f.agent(), sick)
}

// boot starts what the loader chooses; it must be whole.
func (f *fragile) boot(what string) {
	f.t.Helper()
	f.rebooted = false
	names := f.disk.Bootable()
	next, renamed, ok := slot.Choose(names)
	if f.bios {
		counts, err := grubenv.Parse(f.disk.Content(grubenv.File))
		if err != nil {
			counts, names = nil, slices.DeleteFunc(names, func(n string) bool { return strings.Contains(n, "+") })
		}
		var after slot.Counts
		next, after, ok = slot.ChooseBIOS(names, counts)
		renamed = next
		if err == nil {
			f.disk.Put(block(after), grubenv.File)
		}
	}
	if !ok {
		f.t.Fatalf("%s: nothing boots, the ESP holds %q", what, names)
	}
	program := f.disk.Content(next)
	root, _, err := match.RootHash(bytes.NewReader(program))
	if err != nil {
		f.t.Fatalf("%s: %s boots and is not whole: %v", what, next, err)
	}
	f.running = f.builds[root]
	if f.running == nil || !bytes.Equal(program, f.running.Boot) {
		f.t.Fatalf("%s: %s boots and is damaged or unknown", what, next)
	}
	if f.running != f.first && !bytes.HasPrefix(f.disk.SlotContent(), f.running.Root) {
		f.t.Fatalf("%s: %s boots, but the slot does not hold its root image", what, next)
	}
	if renamed != next {
		f.disk.Drop(next)
		f.disk.Put(program, renamed)
	}
}

// after is the machine that comes back with the power. torn says that the state was hit too.
func (f *fragile) after(fate installtest.Fate, torn bool) *fragile {
	m := *f.machine
	m.dir, m.rebooted, m.log = f.t.TempDir(), false, bytes.Buffer{}
	g := &fragile{machine: &m, disk: f.disk.After(fate), first: f.first, next: f.next, sick: f.sick}
	if err := os.CopyFS(m.dir, os.DirFS(f.machine.dir)); err != nil {
		f.t.Fatal(err)
	}
	if torn {
		m.write("var/.state.json.new", []byte(`{"pha`))
		m.write("var/.quarantine.json.new", []byte(`[`))
		history, err := os.OpenFile(filepath.Join(m.dir, "var/history.jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = history.WriteString(`{"time":"2026-01-0`)
		}
		if err := errors.Join(err, history.Close()); err != nil {
			f.t.Fatal(err)
		}
	}
	return g
}

// life is what a machine does by itself until it rests: start, judge, update. It returns how often it booted.
func (f *fragile) life(what string) {
	f.t.Helper()
	for range 8 {
		f.boot(what)
		if _, err := f.agent().Settle(); err != nil {
			f.t.Fatalf("%s: settle: %v", what, err)
		}
		_ = f.health() // a verdict is an error too
		if f.rebooted {
			continue
		}
		r, err := f.agent().Apply(f.t.Context(), true)
		if err != nil {
			f.t.Fatalf("%s: apply: %v", what, err)
		}
		if !f.rebooted {
			f.rest(what, r)
			return
		}
	}
	f.t.Fatalf("%s: the machine does not come to rest: the ESP holds %q", what, f.disk.Names())
}

// rest checks where a machine has come to rest.
func (f *fragile) rest(what string, r *state.Result) {
	f.t.Helper()
	want := f.next
	if f.sick {
		want = f.first
		if !strings.Contains(r.Text, "1.0.1 is quarantined") {
			f.t.Errorf("%s: %s", what, r.Text)
		}
	}
	if f.running != want {
		f.t.Errorf("%s: rests on %s: %s", what, f.running.Release.Version, r.Text)
	}
	h, err := f.agent().Store.History()
	event := state.EventGood
	if f.sick {
		event = state.EventBad
	}
	// The line of the history is the last thing to be written and may be what the power cut took; all others are there.
	if err != nil || len(h) > 0 && h[len(h)-1].Event != event && h[len(h)-1].Event != state.EventArmed {
		f.t.Errorf("%s: history: %+v, %v", what, h, err)
	}
}

// Power is lost before every write to the state and in every change of the slot and the ESP, while the machine updates itself, while it
// makes the try good and while it goes back from it. Whatever boots is whole, and the machine comes to rest where it would have without.
// PROA_POWERCUT=full does so for both verdicts under both loaders.
func TestPowerLostInAnUpdate(t *testing.T) {
	for _, c := range []struct {
		name       string
		sick, bios bool
	}{{"good", false, false}, {"bad", true, false}, {"good under BIOS", false, true}, {"bad under BIOS", true, true}} {
		if c.sick == c.bios && !installtest.FullDepth() {
			continue // a unit test has time for one of each
		}
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			m.bios = c.bios
			first, next := m.tiny("1.0.0"), m.tiny("1.0.1")
			m.running = first
			m.repo.Release(t, next)
			start := func(n int) *fragile {
				own := *m
				own.dir, own.log = t.TempDir(), bytes.Buffer{}
				f := &fragile{machine: &own, disk: installtest.New(make([]byte, 2<<20)), first: first, next: next, sick: c.sick}
				f.disk.Put(first.Boot, "proa_1.0.0.efi")
				if c.bios {
					f.disk.Put(grubenv.Empty(), grubenv.File)
				}
				f.disk.FailAt = n
				return f
			}
			disks := map[digest.SHA256]bool{}
			cuts, at := 0, map[string]int{} // by what was under way
			for n := 1; ; n++ {
				f := start(n)
				cut := f.disk.Cut(func() { f.life("undisturbed") })
				if cut == nil {
					break
				}
				kind, _, _ := strings.Cut(cut.What, " ")
				at[kind]++
				for _, fate := range f.disk.Fates() {
					cuts++
					what := fmt.Sprintf("%s, %s", cut, fate.Name)
					g := f.after(fate, n%2 == 0)
					if sum := g.disk.Sum(); cut.What == "state" || !disks[sum] {
						disks[sum] = true
						g.life(what)
					}
				}
			}
			t.Logf("%d power cuts, %d different disks, in steps %v", cuts, len(disks), at)
			// There are 89 cuts in 42 steps at least. A test that cuts nothing, or leaves out a kind of step, has shown nothing.
			if cuts < 60 || len(disks) < 12 {
				t.Errorf("%d power cuts, %d different disks, want at least 60 and 12", cuts, len(disks))
			}
			for kind, floor := range map[string]int{"state": 20, "create": 1, "write": 2, "sync": 3, "rename": 2} {
				if at[kind] < floor {
					t.Errorf("power was lost in %d steps of kind %s, want at least %d", at[kind], kind, floor)
				}
			}
		})
	}
}

// tiny is a build with a small root image that the machine will recognise.
func (m *machine) tiny(version string) *repotest.Build {
	b := repotest.FromRoot(m.t, version, bytes.Repeat([]byte(version+" root image "), 20000)[:256<<10])
	m.builds[b.Release.Root.RootHash] = b
	return b
}
