package stage

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/ignition/platform"
	"github.com/proa-os/proa/ignition/platform/platformtest"
	"github.com/proa-os/proa/ignition/relocate"
	"github.com/proa-os/proa/internal/testenv"
)

// A fragile machine has the config in its hypervisor, and loses power where it is told to.
type fragile struct {
	t     *testing.T
	dir   string
	info  map[string]string
	moves bool // state, to another file system
}

const newUUID = "00112233-4455-6677-8899-aabbccddeeff"

// fragileFrom is a machine with these disks that nobody has started yet.
func fragileFrom(t *testing.T, d disks, moves bool) *fragile {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ignition-crash") // memory: it is synced thousands of times
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &fragile{t, dir, maps.Clone(d.info), moves}
	d.root.write(t, dir+"/root")
	d.home.write(t, dir+"/home")
	return m
}

func (m *fragile) disks() disks {
	m.t.Helper()
	return disks{readTree(m.t, m.dir+"/root"), readTree(m.t, m.dir+"/home"), maps.Clone(m.info)}
}

func (m *fragile) options(fault func(step string) error) (*platform.Machine, Options, func()) {
	m.t.Helper()
	sys, err := os.OpenRoot(m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	h := &platformtest.Hypervisor{T: m.t, Info: m.info, Fault: fault}
	run := m.dir + "/run/"
	o := Options{Root: m.dir + "/root", ConfigCache: run + "config.json", StateFile: run + "state.json", NeedNet: run + "neednet", Failure: run + "failure",
		Restart: run + "restart", Reread: run + "reread", Owners: anyOwner{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Fault: fault}
	if m.moves {
		o.home = func(context.Context, string) (*home, error) { return &home{"/dev/vdb1", newUUID, m.fill}, nil }
	}
	return &platform.Machine{Sys: sys, Getenv: func(string) string { return m.dir + "/usr" }, Load: func(context.Context, ...string) error { return nil },
		CommandLine: "ignition.platform.id=vmware", Guest: platform.Guest{Backdoor: func(r *platform.Registers) error {
			return h.Call(&r.AX, &r.BX, &r.CX, &r.DX, &r.SI, &r.DI)
		}}}, o, func() { sys.Close() }
}

// fill is the home's, without the mounting.
func (m *fragile) fill(mark func(root *os.Root, dir string) error) error {
	if err := relocate.Copy(m.dir+"/root/var", m.dir+"/home"); err != nil {
		return err
	}
	to, err := os.OpenRoot(m.dir + "/home")
	if err != nil {
		return err
	}
	return errors.Join(mark(to, "lib/ignition"), to.Close())
}

// errCut is a loss of power. It goes through the program as a panic, so that nothing is tidied up on its way.
var errCut = errors.New("power cut")

// boot is a first boot.
func (m *fragile) boot(fault func(step string) error) (err error) {
	m.t.Helper()
	p, o, end := m.options(fault)
	defer end()
	defer func() {
		if r := recover(); r == errCut {
			err = errCut
		} else if r != nil {
			panic(r)
		}
	}()
	return FirstBoot(m.t.Context(), p, o, Boot{ID: "b", Now: time.Unix(0, 0), Systemctl: func(_ context.Context, args ...string) error {
		return fault("systemctl " + strings.Join(args, " "))
	}})
}

// moved says where the initramfs finds state.
func (d disks) moved() bool {
	at, ok := d.root[filepath.Join("var", relocate.Pointer)]
	return ok && at.text == string(relocate.Text(newUUID))
}

// provisioned says what the generator finds: whether the state that the machine uses has the marker.
func (d disks) provisioned() bool {
	if d.moved() {
		_, ok := d.home["lib/ignition/provisioned"]
		return ok
	}
	_, ok := d.root[Marker]
	return ok
}

// life is what happens from a loss of power on, until the machine rests. It returns how often it provisioned.
func (m *fragile) life() (boots int) {
	m.t.Helper()
	for ; !m.disks().provisioned(); boots++ {
		if m.disks().moved() {
			m.t.Fatal("the machine starts from a state that is not complete")
		}
		if boots > 0 {
			m.t.Fatal("a boot that says it has provisioned the machine has not")
		}
		if err := m.boot(func(string) error { return nil }); err != nil {
			m.t.Fatalf("the next boot: %v", err)
		}
	}
	d := m.disks()
	_, here := d.root[toDelete]
	_, there := d.home["lib/ignition/delete-config"]
	if here || m.moves && there { // ignition-delete-config.service
		m.deleteConfig()
	}
	return boots
}

// deleteConfig is what `ignition rmcfg` does at the next boot, where /var is the state that the machine uses.
func (m *fragile) deleteConfig() {
	m.t.Helper()
	p, o, end := m.options(nil)
	defer end()
	it, err := platform.Lookup("vmware")
	if m.moves {
		o.Root = m.dir + "/booted"
		err = errors.Join(err, os.Mkdir(o.Root, 0o755), os.Rename(m.dir+"/home", o.Root+"/var"))
	}
	if err == nil {
		_, err = Delete(m.t.Context(), p, o, it)
	}
	if m.moves {
		err = errors.Join(err, os.Rename(o.Root+"/var", m.dir+"/home"), os.Remove(o.Root))
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

const crashConfig = `{"ignition":{"version":"3.4.0"},"storage":{"links":[{"path":"/etc/l","target":"a"}],
	"files":[{"path":"/etc/a","contents":{"source":"data:,secret"}},{"path":"/etc/hosts","append":[{"source":"data:,more"}]}]},
	"systemd":{"units":[{"name":"a.service","enabled":true,"contents":"[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"}]}}`

// beforeFirstBoot is a machine as it was installed.
func beforeFirstBoot() disks {
	dir := node{mode: fs.ModeDir | 0o755}
	root := tree{".": dir, "etc": dir, "var": dir, "var/lib": dir, "usr": dir, "usr/lib": dir, "usr/lib/systemd": dir, "usr/lib/systemd/system": dir,
		"etc/passwd": {0o644, "root:x:0:0:root:/root:/bin/sh\n"}, "etc/hosts": {0o644, "127.0.0.1 localhost\n"}}
	return disks{root, tree{".": dir}, map[string]string{"guestinfo.ignition.config.data": crashConfig}}
}

// same fails if a machine is not as one that never lost power. What the journal knows depends on how often it was at work.
func same(t *testing.T, got, want disks) {
	t.Helper()
	for _, d := range []struct{ got, want tree }{{got.root, want.root}, {got.home, want.home}} {
		for _, name := range changes(d.want, d.got) {
			// What is left of a torn pointer is copied with the state, and read by nobody.
			if base := filepath.Base(name); base != "journal" && base != ".var.new" {
				t.Errorf("%s: got %v, want %v", name, d.got[name], d.want[name])
			}
		}
	}
	if got.info["guestinfo.ignition.config.data"] != "e30K" || got.info["guestinfo.ignition.config.data.encoding"] != "base64" {
		t.Errorf("the hypervisor still has the config: %v", got.info)
	}
}

// Power goes at every step of a first boot, and what was under way is there, lost, or torn. The next boot completes it, with the user data deleted,
// as if nothing had happened; a machine that counts as provisioned is complete, and is not provisioned again.
func TestPowerCutAnywhere(t *testing.T) {
	for name, moves := range map[string]bool{"state stays": false, "state moves": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if moves && os.Geteuid() != 0 {
				testenv.Missing(t, "as an ordinary user: the copy sets owners")
			}
			steps, states := recordSteps(t, moves)
			want := atRest(t, states, moves)
			last := []string{"remember what was made", "write result.json", "write delete-config", "write provisioned", "guestinfo.ignition.config.data", "guestinfo.ignition.config.data.encoding"}
			if !moves {
				last = append(last, "remove delete-config") // else the next boot does it
			}
			if moves {
				last = append(last, "copy state", "say where state is", "systemctl --no-block reboot")
			}
			for _, step := range last {
				if !slices.Contains(steps, step) {
					t.Fatalf("the power is never cut at %q of %q", step, steps)
				}
			}
			tried, again := 0, 0
			synced := states[0]
			for n, step := range steps {
				if step == "remember what was made" || strings.HasPrefix(step, "write ") || step == "copy state" {
					synced = states[n]
				}
				all := fates(step, synced, states[n], states[n+1])
				if os.Getenv("PROA_DEEP") == "" { // package apply tries all that can happen to its own steps, too
					all = sample(all, !slices.Contains(last, step))
				}
				for _, f := range all {
					m := fragileFrom(t, f.disks, moves)
					finished := f.provisioned()
					boots := m.life()
					got := m.disks()
					if same(t, got, want); finished && boots > 0 {
						t.Error("a provisioned machine is provisioned again")
					}
					if t.Failed() {
						t.Fatalf("power lost in %q: %s", step, f.name)
					}
					tried, again = tried+1, again+boots
					os.RemoveAll(m.dir)
				}
			}
			t.Logf("%d steps, %d ways to lose power, %d boots that provision again", len(steps), tried, again)
		})
	}
}

// sample is the first fate, and some of the others of a step; of an early one, few.
func sample(all []fate, early bool) []fate {
	step := 1 + (len(all)-1)/8
	if early {
		step = 1 + (len(all)-1)/2
	}
	var some []fate
	for n := 0; n < len(all); n += step {
		some = append(some, all[n])
	}
	return some
}

// recordSteps runs a first boot to its end and returns its steps, and what the disks hold before each and in the end.
func recordSteps(t *testing.T, moves bool) (steps []string, states []disks) {
	t.Helper()
	m := fragileFrom(t, beforeFirstBoot(), moves)
	defer os.RemoveAll(m.dir)
	err := m.boot(func(step string) error {
		steps, states = append(steps, step), append(states, m.disks())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return steps, append(states, m.disks())
}

// atRest is what the disks of a machine hold that has never lost power, some boots later.
func atRest(t *testing.T, states []disks, moves bool) disks {
	t.Helper()
	m := fragileFrom(t, states[len(states)-1], moves)
	defer os.RemoveAll(m.dir)
	if boots := m.life(); boots > 0 {
		t.Errorf("a whole first boot, and %d more", boots)
	}
	return m.disks()
}

// Power goes in the middle of a step, in the program itself: what it has done so far is all there is.
func TestPowerCutInTheProgram(t *testing.T) {
	steps, states := recordSteps(t, false)
	want := atRest(t, states, false)
	for n, step := range steps {
		m := fragileFrom(t, beforeFirstBoot(), false)
		left := n
		err := m.boot(func(string) error {
			if left == 0 {
				panic(errCut)
			}
			left--
			return nil
		})
		if !errors.Is(err, errCut) {
			t.Fatalf("cut before %q: got %v", step, err)
		}
		if err := os.RemoveAll(m.dir + "/run"); err != nil { // it is memory
			t.Fatal(err)
		}
		m.life()
		if same(t, m.disks(), want); t.Failed() {
			t.Fatalf("power lost before %q", step)
		}
		os.RemoveAll(m.dir)
	}
}
