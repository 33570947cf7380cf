package agent_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/config"
	"github.com/proa-os/proa/update-engine/health"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/match"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/reboot"
	"github.com/proa-os/proa/update-engine/record"
	"github.com/proa-os/proa/update-engine/repotest"
	"github.com/proa-os/proa/update-engine/state"
)

// A machine of files: two slots, an ESP folder, a loader that follows the rule. Its first boot runs build 1.0.0.
type machine struct {
	t        *testing.T
	repo     *repotest.Repo
	server   *repotest.Server
	dir      string
	builds   map[digest.SHA256]*repotest.Build
	running  *repotest.Build
	active   string // "a" or "b"
	failed   []string
	rebooted bool
	forced   bool
	bios     bool   // the loader is GRUB
	mounting func() // called when the ESP is opened
	free     int64
	freeErr  error // of asking for it
	noESP    error
	noSource error
	offline  bool
	now      time.Time // the clock, if it is not the repository's
	log      bytes.Buffer

	stateRoom func() (int64, error)

	userspace agent.Userspace
	reboots   reboot.Config
	moment    func() // called by the agent's clock
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, repo: repotest.New(t), dir: t.TempDir(), builds: map[digest.SHA256]*repotest.Build{}, free: 1 << 40}
	m.server = m.repo.Serve(t)
	first := m.build("1.0.0")
	m.write("esp/proa_1.0.0.efi", first.Boot)
	m.write("root-a", append(bytes.Clone(first.Root), make([]byte, 1<<20)...))
	m.write("root-b", make([]byte, len(first.Root)+1<<20))
	m.running, m.active = first, "a"
	return m
}

func (m *machine) write(name string, b []byte) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
		m.t.Fatal(err)
	}
}

// build makes a build that the machine will recognise when it boots.
func (m *machine) build(version string) *repotest.Build {
	b := repotest.NewBuild(m.t, version)
	m.builds[b.Release.Root.RootHash] = b
	return b
}

func (m *machine) release(version string) *repotest.Build {
	b := m.build(version)
	m.repo.Release(m.t, b)
	return b
}

// Running, Boot, BIOS, Passive, FailedUnits and Reboot implement agent.Machine.
func (m *machine) Running() (state.Release, error) {
	return state.Release{Version: m.running.Release.Version, Root: m.running.Release.Root.RootHash}, nil
}

type folder struct {
	*install.Dir
	free int64
	err  error
}

func (f folder) Free() (int64, error) { return f.free, f.err }

func (m *machine) Boot() (agent.BootFolder, error) {
	if m.mounting != nil {
		m.mounting()
	}
	if m.noESP != nil {
		return nil, m.noESP
	}
	d, err := install.OpenDir(filepath.Join(m.dir, "esp"))
	return folder{d, m.free, m.freeErr}, err
}

func (m *machine) BIOS() bool { return m.bios }

func (m *machine) Passive() (install.File, error) {
	other := map[string]string{"a": "b", "b": "a"}[m.active]
	return install.OpenDevice(filepath.Join(m.dir, "root-"+other))
}

// Source is the running root image in its slot.
func (m *machine) Source() (agent.RootImage, error) {
	if m.noSource != nil {
		return nil, m.noSource
	}
	f, err := os.Open(filepath.Join(m.dir, "root-"+m.active))
	return rootImage{f, m.running.Release.Root.HashOffset}, err
}

type rootImage struct {
	*os.File
	size int64
}

func (r rootImage) Size() int64 { return r.size }

func (m *machine) FailedUnits(context.Context) ([]string, error) { return m.failed, nil }
func (m *machine) Reboot(_ context.Context, force bool) error {
	m.rebooted, m.forced = true, force
	return nil
}

// esp lists the boot programs.
func (m *machine) esp() []string {
	m.t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.dir, "esp"))
	if err != nil {
		m.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != grubenv.File {
			names = append(names, e.Name())
		}
	}
	return names
}

// boot starts what the loader chooses, from whichever slot holds its root image, whole.
func (m *machine) boot() {
	m.t.Helper()
	m.rebooted = false
	next, renamed, ok := slot.Choose(m.esp())
	if m.bios {
		next, ok = m.grub()
		renamed = next
	}
	if !ok {
		m.t.Fatal("nothing boots")
	}
	esp := filepath.Join(m.dir, "esp")
	if err := os.Rename(filepath.Join(esp, next), filepath.Join(esp, renamed)); err != nil {
		m.t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(esp, renamed))
	if err != nil {
		m.t.Fatal(err)
	}
	root, _, err := match.RootHash(bytes.NewReader(program))
	if err != nil {
		m.t.Fatalf("%s: %v", next, err)
	}
	b := m.builds[root]
	for _, s := range []string{"a", "b"} {
		image, err := os.ReadFile(filepath.Join(m.dir, "root-"+s))
		if err != nil {
			m.t.Fatal(err)
		}
		if b != nil && bytes.HasPrefix(image, b.Root) {
			m.running, m.active = b, s
			return
		}
	}
	m.t.Fatalf("%s boots root hash %s, which no slot holds", next, root)
}

// agent is a fresh process of the agent, as after a reboot.
func (m *machine) agent() *agent.Agent {
	m.t.Helper()
	store, err := record.Open(filepath.Join(m.dir, "var"))
	if err != nil {
		m.t.Fatal(err)
	}
	c := config.Default()
	c.Server = m.server.URL
	if m.offline {
		c.Server = "http://127.0.0.1:1"
	}
	if m.reboots.Strategy != "" {
		c.Reboot = m.reboots
	}
	return &agent.Agent{
		Machine: m, Userspace: m.userspace, Store: store, Config: c, Anchor: m.repo.Root, TUFState: filepath.Join(m.dir, "var/tuf"),
		Client: &client.Client{Source: client.NewHTTP(5 * time.Second), Retry: client.Retry{Attempts: 3, Pause: time.Millisecond, MaxPause: time.Millisecond}},
		Now: func() time.Time {
			if m.moment != nil {
				m.moment()
			}
			if !m.now.IsZero() {
				return m.now
			}
			return m.repo.Time
		},
		Identity: []byte("3ae1c2d89b3f4c0b9e5d0a7761f5c0d2"), Epoch: time.Date(2025, 12, 1, 0, 0, 0, 0, time.UTC), StateRoom: m.stateRoom,
		Log: slog.New(slog.NewTextHandler(&m.log, nil)),
	}
}

func (m *machine) apply() (*state.Result, error) { return m.agent().Apply(m.t.Context(), true) }

// health runs the gate; sick is what its only check says.
func (m *machine) health(sick error) error { return m.judge(m.agent(), sick) }

func (m *machine) judge(a *agent.Agent, sick error) error {
	gate := health.Gate{Deadline: time.Minute, Interval: 5 * time.Millisecond, Timeout: time.Second} // a busy host may take long for one round
	if sick != nil {
		gate.Deadline = 20 * time.Millisecond
	}
	return a.Health(m.t.Context(), gate, func(state.Machine) []health.Check {
		return []health.Check{{Name: "workload", Run: func(context.Context) error { return sick }}}
	})
}

func (m *machine) why() string {
	m.t.Helper()
	r, err := m.agent().Status()
	if err != nil {
		m.t.Fatal(err)
	}
	return r.Why
}

func (m *machine) wantRuns(version string) {
	m.t.Helper()
	if got := m.running.Release.Version; got != version {
		m.t.Errorf("runs %s, want %s; the ESP holds %q", got, version, m.esp())
	}
}

func (m *machine) wantESP(names ...string) {
	m.t.Helper()
	if got := m.esp(); !slices.Equal(got, names) {
		m.t.Errorf("ESP: got %q, want %q", got, names)
	}
}

// update goes from the running release to the newest, healthily.
func (m *machine) update() {
	m.t.Helper()
	if _, err := m.apply(); err != nil {
		m.t.Fatal(err)
	}
	if !m.rebooted {
		m.t.Fatal("no reboot was asked for")
	}
	m.boot()
	if err := m.health(nil); err != nil {
		m.t.Fatal(err)
	}
}

func TestUpdateAndAgain(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	r, err := m.agent().Check(t.Context())
	if err != nil || r.Offered == nil || r.Offered.Version != "1.0.1" || r.Armed {
		t.Fatalf("check: %+v, %v", r, err)
	}
	m.wantESP("proa_1.0.0.efi")
	r, err = m.apply()
	if err != nil || !r.Armed {
		t.Fatalf("apply: %+v, %v", r, err)
	}
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
	if got := m.why(); !strings.Contains(got, "rebooting") {
		t.Errorf("why: %s", got)
	}
	m.boot()
	m.wantRuns("1.0.1")
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+2-1.efi")
	if _, err := m.apply(); err == nil || !strings.Contains(err.Error(), "on trial") {
		t.Errorf("apply in a try: %v", err)
	}
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1.efi")
	if got := m.why(); got != "runs 1.0.1, the release of channel stable" {
		t.Errorf("why: %s", got)
	}
	if r, err := m.apply(); err != nil || r.Armed || m.rebooted {
		t.Errorf("apply again: %+v, %v", r, err)
	}
	m.release("1.0.2")
	m.update()
	m.wantRuns("1.0.2")
	m.wantESP("proa_1.0.1.efi", "proa_1.0.2.efi")
	h, err := m.agent().Store.History()
	if err != nil || len(h) != 4 || h[3].Event != state.EventGood || h[3].Version != "1.0.2" {
		t.Errorf("history: %+v, %v", h, err)
	}
	for _, line := range []string{`msg="release armed" version=1.0.1`, `msg="release good" version=1.0.1`} {
		if !strings.Contains(m.log.String(), line) {
			t.Errorf("the log lacks %s:\n%s", line, m.log.String())
		}
	}
}

// A release whose kernel panics: three tries, then the old one, and it is remembered.
func TestKernelPanics(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	m.update()
	m.release("1.0.2")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	for range slot.Tries {
		m.boot()
		m.wantRuns("1.0.2") // and nothing of the agent runs
	}
	m.boot()
	m.wantRuns("1.0.1")
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	m.wantBad("1.0.2", "tries are used up")
	if err := m.health(nil); err != nil { // the next boot does not say it twice
		t.Fatal(err)
	}
	if n := strings.Count(m.log.String(), "release quarantined"); n != 1 {
		t.Errorf("quarantined %d times", n)
	}
	m.release("1.0.3")
	m.update()
	m.wantRuns("1.0.3")
}

// wantBad checks that a release is remembered as bad and not taken again.
func (m *machine) wantBad(version, reason string) {
	m.t.Helper()
	r, err := m.apply()
	if err != nil || r.Armed || m.rebooted || !strings.Contains(r.Text, "release "+version+" is quarantined") || !strings.Contains(r.Text, reason) {
		m.t.Errorf("apply of a bad release: %+v, %v", r, err)
	}
	if got := m.why(); !strings.Contains(got, "quarantined") || !strings.Contains(got, reason) {
		m.t.Errorf("why: %s", got)
	}
	h, err := m.agent().Store.History()
	if err != nil || len(h) == 0 || h[len(h)-1].Version != version || h[len(h)-1].Event != state.EventBad && h[len(h)-1].Event != state.EventRefused {
		m.t.Errorf("history: %+v, %v", h, err)
	}
}

func TestUnhealthyTry(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	m.boot()
	m.wantRuns("1.0.1")
	if err := m.health(errors.New("web: not running")); err == nil || !m.rebooted || !m.forced {
		t.Fatalf("health: %v, rebooted %v, by force if need be %v", err, m.rebooted, m.forced)
	}
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+0-1.efi")
	m.boot()
	m.wantRuns("1.0.0")
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	m.wantBad("1.0.1", "workload: web: not running")
	// The good release being ill is reported, nothing else.
	if err := m.health(errors.New("web: not running")); err == nil || m.rebooted {
		t.Errorf("health: %v, rebooted %v", err, m.rebooted)
	}
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+0-1.efi")
}

// Power is lost between the verdict and the boot program's new name: the next try fails at once.
func TestVerdictOutlivesPowerCut(t *testing.T) {
	m := newMachine(t)
	b := m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	if err := m.agent().Store.AddQuarantine(state.Quarantined{Release: state.Release{Version: "1.0.1", Root: b.Release.Root.RootHash}, Reason: "web: not running"}); err != nil {
		t.Fatal(err)
	}
	m.boot()
	m.wantRuns("1.0.1")
	if err := m.health(nil); err == nil || !m.rebooted {
		t.Errorf("health: %v, rebooted %v", err, m.rebooted)
	}
	m.boot()
	m.wantRuns("1.0.0")
}

// A signed release whose root image is not the one it names: refused, remembered, and a newer one is taken.
func TestBadRelease(t *testing.T) {
	m := newMachine(t)
	bad := m.build("1.0.1")
	bad.Release.Root.RootHash[0] ^= 1
	bad.Boot = repotest.BootProgram(t, "1.0.1", bad.Release.Root.RootHash, bad.Release.Root.HashOffset)
	bad.Release.Boot.Size, bad.Release.Boot.SHA256 = int64(len(bad.Boot)), digest.Of(bad.Boot)
	bad.Write(t)
	m.repo.ReleaseUnchecked(t, bad)
	if _, err := m.apply(); err == nil || m.rebooted || !strings.Contains(err.Error(), "its root image has root hash") {
		t.Errorf("apply: %v, rebooted %v", err, m.rebooted)
	}
	m.wantESP("proa_1.0.0.efi")
	m.wantBad("1.0.1", "its root image has root hash")
	m.release("1.0.2")
	m.update()
	m.wantRuns("1.0.2")
}

// The four of issue 2, end to end: clear errors, and the machine boots what it ran.
func TestAttacks(t *testing.T) {
	flip := func(b []byte) {
		if len(b) > 0 {
			b[len(b)/2] ^= 1
		}
	}
	for _, c := range []struct {
		name   string
		attack func(*machine)
		want   string // what is wrong
		next   string // what to do
	}{
		{"tampered root image", func(m *machine) { m.server.Tamper("full.payload", func(b []byte) { b[len(b)-100000] ^= 1 }) }, "damaged", "no server gave what was signed: ask another"},
		{"tampered payload header", func(m *machine) { m.server.Tamper("full.payload", func(b []byte) { b[20] ^= 1 }) }, "damaged", "no server gave what was signed: ask another"},
		{"payload of another release", func(m *machine) {
			other := repotest.New(t)
			other.Release(t, repotest.NewBuild(t, "6.6.6"))
			files, _ := filepath.Glob(filepath.Join(other.Dir, "targets/releases/6.6.6/amd64/*.full.payload"))
			evil, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			m.server.Tamper("full.payload", func(b []byte) { copy(b, evil) })
		}, "payload", "no server gave what was signed: ask another"},
		{"tampered timestamp", func(m *machine) { m.server.Tamper("timestamp.json", flip) }, "timestamp.json", ""},
		{"tampered snapshot", func(m *machine) { m.server.Tamper(".snapshot.json", flip) }, "snapshot.json: tampered", "ask another server"},
		{"tampered targets", func(m *machine) { m.server.Tamper(".targets.json", flip) }, "targets.json: tampered", "ask another server"},
		{"tampered release.json", func(m *machine) { m.server.Tamper(".release.json", flip) }, "release.json: tampered", "ask another server"},
		{"tampered plan", func(m *machine) { m.server.Tamper(".stable.json", flip) }, "plan/stable.json: tampered", "ask another server"},
		{"wrong key", func(m *machine) {
			other := repotest.New(t)
			other.Release(t, repotest.NewBuild(t, "6.6.6"))
			m.server = other.Serve(t)
		}, "signed by a key that is not trusted", "correct the server in the configuration"},
		{"unsigned release in the plan", func(m *machine) {
			if err := m.repo.Publish("stable", plan.Plan{Release: "6.6.6"}); err != nil {
				t.Fatal(err)
			}
		}, "names release 6.6.6: refuse releases/6.6.6/amd64/release.json: not signed", "name another in the plan"},
		{"expired", func(m *machine) { m.repo.Time = m.repo.Time.Add(48 * time.Hour) }, "timestamp.json: expired", "release refresh renews it"},
		{"no server", func(m *machine) { m.server.URL = "http://127.0.0.1:1" }, "refused", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			m.release("1.0.1")
			m.t = t
			c.attack(m)
			if _, err := m.apply(); err == nil || m.rebooted || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.next) {
				t.Errorf("got %v, want an error with %q and %q", err, c.want, c.next)
			}
			m.wantESP("proa_1.0.0.efi")
			if q, err := m.agent().Store.Quarantine(); err != nil || len(q) != 0 {
				t.Errorf("quarantined %+v, %v: an attacker could block a release for good", q, err)
			}
			if got := m.why(); strings.Contains(got, "\n") || !strings.Contains(got, "1.0.0") {
				t.Errorf("why: %q", got)
			}
			m.boot()
			m.wantRuns("1.0.0")
		})
	}
}

func TestCutDownload(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	m.server.Cut("full.payload", 100_000)
	m.update()
	m.wantRuns("1.0.1")
	resumed := false
	for _, r := range m.server.Requests() {
		resumed = resumed || strings.HasSuffix(r, "full.payload bytes=100000-")
	}
	if !resumed || !strings.Contains(m.log.String(), `msg="download interrupted, resuming" version=1.0.1 at=100000`) {
		t.Errorf("requests %q, log:\n%s", m.server.Requests(), m.log.String())
	}
}

// A download that ends for good leaves the machine as it was, and the next one works.
func TestCutDownloadForGood(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	m.server.Tamper("full.payload", func(b []byte) { panic(http.ErrAbortHandler) })
	if _, err := m.apply(); err == nil {
		t.Error("no error")
	}
	m.wantESP("proa_1.0.0.efi")
	m.server.Tamper("full.payload", nil)
	m.update()
	m.wantRuns("1.0.1")
}

func TestNotTaken(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(*machine)
		want  string
		err   bool
	}{
		{"older", func(m *machine) { m.release("0.9.0") }, "never go back", false},
		{"same", func(m *machine) { m.repo.Release(m.t, m.running) }, "runs 1.0.0, the release of channel stable", false},
		{"halted", func(m *machine) {
			m.release("1.0.1")
			if err := m.repo.Publish("stable", plan.Plan{Release: "1.0.1", Halted: true}); err != nil {
				m.t.Fatal(err)
			}
		}, "halted", false},
		{"a wave without it", func(m *machine) {
			m.release("1.0.1")
			if err := m.repo.Publish("stable", plan.Plan{Release: "1.0.1", Waves: m.waves(-1)}); err != nil {
				m.t.Fatal(err)
			}
		}, "release 1.0.1 reaches this machine with the wave of ", false},
		{"too far", func(m *machine) {
			b := m.build("3.0.0")
			b.Release.MinSource = "2.0.0"
			b.Write(m.t)
			m.repo.Release(m.t, b)
		}, "can be reached from 2.0.0 on", true},
		{"full ESP", func(m *machine) { m.release("1.0.1"); m.free = 1000 }, "bytes are missing", true},
		{"no channel", func(m *machine) {}, "plan/stable.json: not signed", true},
	} {
		m := newMachine(t)
		c.setup(m)
		r, err := m.apply()
		if (err != nil) != c.err || m.rebooted {
			t.Errorf("%s: %+v, %v", c.name, r, err)
			continue
		}
		text := m.why()
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, text, c.want)
		}
		m.wantESP("proa_1.0.0.efi")
	}
}

// waves has one that began an hour ago and takes as many machines as stand before this one, or those and this one, and one tomorrow that takes all.
func (m *machine) waves(more int) []plan.Wave {
	place := int(plan.PlaceOf(m.agent().Identity, "1.0.1"))
	return []plan.Wave{{From: m.repo.Time.Add(-time.Hour), Percent: place + 1 + more}, {From: m.repo.Time.Add(24 * time.Hour), Percent: 100}}
}

// A machine takes a release in the wave that it stands in, and no later.
func TestTakenInItsWave(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	if err := m.repo.Publish("stable", plan.Plan{Release: "1.0.1", Waves: m.waves(0)}); err != nil {
		t.Fatal(err)
	}
	m.update()
	m.wantRuns("1.0.1")
}

// A later desk writes keys that this machine does not know: it takes the release, unless the format says that it must know them.
func TestReleaseOfALaterDesk(t *testing.T) {
	for key, runs := range map[string]string{`"notes": {"en": "faster"},`: "1.0.1", `"format": 2,`: "1.0.0"} {
		m := newMachine(t)
		m.repo.ReleaseText(t, m.build("1.0.1"), func(text string) string { return strings.Replace(text, "{", "{"+key, 1) })
		if _, err := m.apply(); (err == nil) != (runs == "1.0.1") || err != nil && !strings.Contains(err.Error(), "update in smaller steps") {
			t.Errorf("%s: %v", key, err)
		}
		m.boot()
		m.wantRuns(runs)
	}
}

// Power is lost in the middle of a job: the phase is put right at the next start, and the job can be done again.
func TestInterruptedJob(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	for _, phase := range []state.Phase{state.Checking, state.Downloading, state.Writing} {
		if err := m.agent().Store.SetMachine(state.Machine{Phase: phase}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.agent().Settle(); err != nil {
			t.Fatal(err)
		}
		s, err := m.agent().Store.Machine()
		if err != nil || s.Phase != state.Failed || !strings.Contains(s.Error, "apply it again") {
			t.Errorf("%s: %+v, %v", phase, s, err)
		}
	}
	m.update()
	m.wantRuns("1.0.1")
	// Armed, and the reboot was not asked for: a second apply only reboots.
	m.release("1.0.2")
	if _, err := m.agent().Apply(t.Context(), false); err != nil || m.rebooted {
		t.Fatal(err)
	}
	if got := m.why(); !strings.Contains(got, "1.0.2 is written and armed") {
		t.Errorf("why: %s", got)
	}
	before := len(m.server.Requests())
	m.update()
	m.wantRuns("1.0.2")
	for _, r := range m.server.Requests()[before:] {
		if strings.Contains(r, "payload") {
			t.Errorf("downloaded again: %s", r)
		}
	}
}

// An apply asked for a reboot that somebody prevented; meanwhile the channel has something newer.
func TestApplyAfterAPreventedReboot(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	m.release("1.0.2")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	m.wantESP("proa_1.0.0.efi", "proa_1.0.2+3.efi")
}

// What an interrupted installation left on the ESP counts as room, because the next one removes it.
func TestLeftoversAreRoom(t *testing.T) {
	m := newMachine(t)
	b := m.release("1.0.1")
	m.write("esp/proa_1.0.1.part", b.Boot)
	m.free = 1 << 20 // not enough without it
	m.update()
	m.wantRuns("1.0.1")
}

// A try gets its verdict with the update's memory gone bad: damaged, or in the way of every write as on a full disk.
func TestVerdictWithoutMemory(t *testing.T) {
	for name, harm := range map[string]func(*machine){
		"damaged quarantine": func(m *machine) { m.write("var/quarantine.json", []byte("{")) },
		"no writes":          func(m *machine) { m.write("var/.state.json.new/x", nil); m.write("var/.quarantine.json.new/x", nil) },
	} {
		for _, sick := range []error{nil, errors.New("web: not running")} {
			m := newMachine(t)
			m.release("1.0.1")
			if _, err := m.apply(); err != nil {
				t.Fatal(err)
			}
			m.boot()
			harm(m)
			want := "proa_1.0.1.efi"
			if sick != nil {
				want = "proa_1.0.1+0-1.efi"
			}
			if err := m.health(sick); (err != nil) != (sick != nil) || m.rebooted != (sick != nil) {
				t.Errorf("%s, %v: got %v, rebooted %v", name, sick, err, m.rebooted)
			}
			m.wantESP("proa_1.0.0.efi", want)
		}
	}
}

// State fills up while the slot is written: behind the commit point nothing says that the update failed, because it did not.
func TestArmedWithoutMemory(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	a := m.agent()
	a.Progress = func(stage string, done, total int64) {
		if stage == "write-full" && done == total {
			m.write("var/.state.json.new/x", nil)
			m.write("var/history.jsonl/x", nil)
		}
	}
	if r, err := a.Apply(t.Context(), true); err != nil || !r.Armed || !m.rebooted {
		t.Errorf("got %+v, %v, rebooted %v", r, err, m.rebooted)
	}
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
	if !strings.Contains(m.log.String(), "cannot keep the update state") {
		t.Errorf("the log does not say so:\n%s", m.log.String())
	}
}

func TestNoWayBack(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	m.boot()
	if err := os.Remove(filepath.Join(m.dir, "esp/proa_1.0.0.efi")); err != nil {
		t.Fatal(err)
	}
	var stays *agent.NoWayBack
	if err := m.health(errors.New("sick")); !errors.As(err, &stays) || m.rebooted {
		t.Errorf("got %v, rebooted %v", err, m.rebooted)
	}
}

// Everybody may ask for the status, as often as they like; root's update is not kept from starting by it.
func TestStatusDoesNotKeepFromUpdating(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	a := m.agent()
	checked := make(chan error, 1)
	m.mounting = func() {
		m.mounting = nil
		go func() {
			_, err := a.Check(t.Context())
			checked <- err
		}()
		time.Sleep(50 * time.Millisecond) // Status has the ESP, and Check wants to start
	}
	if _, err := a.Status(); err != nil {
		t.Error(err)
	}
	if err := <-checked; err != nil {
		t.Error(err)
	}
}

func TestBusy(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	a := m.agent()
	inside := false
	a.Progress = func(string, int64, int64) {
		if inside {
			return
		}
		inside = true
		if _, err := a.Apply(t.Context(), false); !errors.Is(err, agent.Busy{}) {
			t.Errorf("a second job: %v", err)
		}
		if _, err := a.Status(); err != nil {
			t.Errorf("status during a job: %v", err)
		}
	}
	if _, err := a.Apply(t.Context(), false); err != nil || !inside {
		t.Error(err)
	}
}

func TestUnconfigured(t *testing.T) {
	m := newMachine(t)
	a := m.agent()
	a.Config = config.Default()
	if _, err := a.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "/etc/proa/update/config.json") {
		t.Errorf("no server: %v", err)
	}
	a = m.agent()
	a.Anchor = nil
	if _, err := a.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "/etc/proa/update/root.json") {
		t.Errorf("no anchor: %v", err)
	}
}
