package agent_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/repotest"
)

// like makes a build whose root image has much in common with that of every other version.
func (m *machine) like(version string, size int) *repotest.Build {
	b := repotest.Similar(m.t, version, size)
	m.builds[b.Release.Root.RootHash] = b
	return b
}

// newDeltaMachine runs 1.0.0, and 1.0.1 is published with a delta from it.
// The root images have size bytes.
func newDeltaMachine(t *testing.T, size int) *machine {
	m := newMachine(t)
	first := m.like("1.0.0", size)
	m.repo.Release(t, first)
	m.write("esp/proa_1.0.0.efi", first.Boot)
	m.write("root-a", append(bytes.Clone(first.Root), make([]byte, 1<<20)...))
	m.write("root-b", make([]byte, len(first.Root)+1<<20))
	m.running = first
	if _, err := m.repo.Stage(t.Context(), m.like("1.0.1", size).Dir, repo.Options{Deltas: 1}); err != nil {
		t.Fatal(err)
	}
	if err := m.repo.Publish("stable", plan.Plan{Release: "1.0.1"}); err != nil {
		t.Fatal(err)
	}
	return m
}

const (
	smallRoot = 1 << 20
	deltaFile = "from-1.0.0.payload"
	fullFile  = "full.payload"
)

// asked returns the requests for a payload.
func (m *machine) asked(suffix string) []string {
	return slices.DeleteFunc(m.server.Requests(), func(r string) bool { return !strings.Contains(r, suffix) })
}

func TestDelta(t *testing.T) {
	m := newDeltaMachine(t, smallRoot)
	r, err := m.agent().Check(t.Context())
	if err != nil || r.Size <= 0 || r.Size > 100_000 {
		t.Errorf("check: %+v, %v: want the delta's size", r, err)
	}
	var stages []string
	a := m.agent()
	a.Progress = func(stage string, done, total int64) {
		if !slices.Contains(stages, stage) {
			stages = append(stages, stage)
		}
	}
	if _, err := a.Apply(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if want := []string{"check", "write-delta", "verify", "reboot"}; !slices.Equal(stages, want) {
		t.Errorf("stages %q, want %q", stages, want)
	}
	m.boot()
	m.wantRuns("1.0.1")
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	if len(m.asked(deltaFile)) != 1 || len(m.asked(fullFile)) != 0 {
		t.Errorf("requests %q", m.server.Requests())
	}
}

// A delta that fails, for whatever reason but the network, is followed by the full payload in the same run, which goes on where the delta
// has come to. The log has the reason, and nothing is quarantined.
func TestDeltaFails(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(*machine)
		want string
	}{
		{"damaged at its beginning", func(m *machine) { m.server.Tamper(deltaFile, func(b []byte) { b[70] ^= 1 }) }, "damaged"},
		{"damaged at its end", func(m *machine) { m.server.Tamper(deltaFile, func(b []byte) { b[len(b)-1] ^= 1 }) }, "boot program"},
		{"of a version to come", func(m *machine) { m.server.Tamper(deltaFile, func(b []byte) { b[8] = 99 }) }, "format version 99"},
		{"missing on the server", func(m *machine) { m.unpublish(deltaFile) }, "file does not exist"},
		{"a source that cannot be read", func(m *machine) { m.noSource = errors.New("no such device") }, "open what the delta reads: no such device"},
		{"a source that is not what runs", func(m *machine) { m.write("root-a", make([]byte, len(m.running.Root))) }, "expected sha256"},
		{"another boot program", func(m *machine) {
			boot := bytes.Clone(m.running.Boot)
			m.write("esp/proa_1.0.0.efi", append(boot, 0))
		}, "this delta is for another source"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newDeltaMachine(t, smallRoot)
			c.harm(m)
			if _, err := m.apply(); err != nil || !m.rebooted {
				t.Fatalf("apply: %v, rebooted %v", err, m.rebooted)
			}
			log := m.log.String()
			if i := strings.Index(log, "delta failed, taking the full payload"); i < 0 || !strings.Contains(log[i:], c.want) {
				t.Errorf("the log lacks %q:\n%s", c.want, log)
			}
			if len(m.asked(fullFile)) == 0 {
				t.Errorf("requests %q", m.server.Requests())
			}
			if q, err := m.agent().Store.Quarantine(); err != nil || len(q) != 0 {
				t.Errorf("quarantined %+v, %v", q, err)
			}
			if next := m.like("1.0.1", smallRoot); !bytes.HasPrefix(m.read("root-b"), next.Root) {
				t.Error("the slot does not hold the root image")
			}
		})
	}
}

// unpublish takes a file from the repository.
func (m *machine) unpublish(suffix string) {
	m.t.Helper()
	files, err := filepath.Glob(filepath.Join(m.repo.Dir, "targets/releases/*/*/*."+suffix))
	if err != nil || len(files) != 1 {
		m.t.Fatalf("%q: %v", files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		m.t.Fatal(err)
	}
}

// A network that fails is no reason to download more.
func TestDeltaCutOff(t *testing.T) {
	m := newDeltaMachine(t, smallRoot)
	m.server.Tamper(deltaFile, func([]byte) { panic(http.ErrAbortHandler) })
	if _, err := m.apply(); err == nil || len(m.asked(fullFile)) != 0 {
		t.Errorf("got %v, requests %q", err, m.server.Requests())
	}
	m.server.Tamper(deltaFile, nil)
	m.update()
	m.wantRuns("1.0.1")
	if len(m.asked(fullFile)) != 0 {
		t.Errorf("requests %q", m.server.Requests())
	}
}

// A disk that cannot be written is no reason either.
func TestDeltaAndAnESPThatBreaks(t *testing.T) {
	m := newDeltaMachine(t, smallRoot)
	m.write("esp/proa_1.0.1.part/x", nil) // in the way of the boot program
	if _, err := m.apply(); err == nil || len(m.asked(fullFile)) != 0 {
		t.Errorf("got %v, requests %q", err, m.server.Requests())
	}
}

// The network is lost for good at any byte: the next run takes the payload up there, and less than a segment comes twice.
func TestLostNetwork(t *testing.T) {
	m := newDeltaMachine(t, 9<<20) // three segments
	m.unpublish(deltaFile)
	files, _ := filepath.Glob(filepath.Join(m.repo.Dir, "targets/releases/1.0.1/*/*."+fullFile))
	if len(files) != 1 {
		t.Fatalf("full payload: %q", files)
	}
	body, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := payload.ReadManifest(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(body))
	lost := int64(0)
	for _, at := range []int64{size / 10, size/2 - 1, size / 2, size * 3 / 4, size - 1, size} {
		m.server.Log = nil
		a := m.agent()
		a.Client.Source = lossy{a.Client.Source, fullFile, at}
		_, err := a.Apply(t.Context(), true)
		if at < size != (err != nil) {
			t.Fatalf("cut at %d of %d: %v", at, size, err)
		}
		first := m.firstByte(t, fullFile)
		if first > 0 && !isMark(manifest, first) {
			t.Errorf("taken up at %d, which is no mark", first)
		}
		if again := lost - first; again < 0 || again > payload.MaxSegment {
			t.Errorf("cut at %d before, taken up at %d: %d bytes come twice", lost, first, again)
		}
		lost = at
	}
	m.boot()
	m.wantRuns("1.0.1")
}

// lossy is a network that is gone behind a byte of a file.
type lossy struct {
	client.Source
	suffix string
	at     int64
}

func (l lossy) Open(ctx context.Context, url string, offset int64) (io.ReadCloser, error) {
	if !strings.HasSuffix(url, l.suffix) {
		return l.Source.Open(ctx, url, offset)
	}
	if offset >= l.at {
		return nil, errors.New("network is unreachable")
	}
	r, err := l.Source.Open(ctx, url, offset)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(r, l.at-offset), r}, nil
}

// firstByte is where the last request for a payload began that was not for its manifest only.
func (m *machine) firstByte(t *testing.T, suffix string) int64 {
	t.Helper()
	asked := m.asked(suffix)
	for _, r := range asked {
		if _, after, ok := strings.Cut(r, "bytes="); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(after, "-"), 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", r, err)
			}
			return n
		}
	}
	if len(asked) == 0 {
		t.Fatal("no payload was asked for")
	}
	return 0
}

func isMark(m *payload.Manifest, read int64) bool {
	for _, o := range m.Outputs {
		for i := range len(o.Segments) + 1 {
			if m.At(o.Kind, i).Read == read {
				return true
			}
		}
	}
	return false
}
