package agent_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/ctl"
	"github.com/proa-os/proa/update-engine/repotest"
	"github.com/proa-os/proa/update-engine/state"
)

// withMirror gives the machine's agent a second server, which is asked when the first fails.
func (m *machine) withMirror(second *repotest.Server) *agent.Agent {
	a := m.agent()
	a.Config.Mirrors = []string{second.URL}
	a.Client.Server, a.Client.Mirrors = a.Config.Server, a.Config.Mirrors
	return a
}

// wantLiar checks that journal, status and why name a server.
func (m *machine) wantLiar(server string) {
	m.t.Helper()
	log := m.log.String()
	if n := strings.Count(log, "server sent wrong bytes"); n != 1 || !strings.Contains(log, "server="+server) {
		m.t.Errorf("the log has %d liars, want one, %s:\n%s", n, server, log)
	}
	r, err := m.agent().Status()
	if err != nil {
		m.t.Fatal(err)
	}
	if len(r.State.Liars) != 1 || r.State.Liars[0].Server != server {
		m.t.Errorf("liars %+v, want %s", r.State.Liars, server)
	}
	if !strings.Contains(r.Why, server+" sent wrong bytes") || strings.Contains(r.Why, "\n") {
		m.t.Errorf("why: %s", r.Why)
	}
	if text := ctl.StatusText(r, m.repo.Time); !strings.Contains(text, "wrong bytes") || !strings.Contains(text, server) {
		m.t.Errorf("status:\n%s", text)
	}
}

func flipLast(b []byte)  { b[len(b)-1] ^= 1 }
func flipFirst(b []byte) { b[70] ^= 1 }

// A server that sends wrong bytes, wherever in whichever payload, is named, and another one gives the same payload.
func TestLyingServer(t *testing.T) {
	for _, c := range []struct {
		name, file string
		change     func([]byte)
	}{{"delta, manifest", deltaFile, flipFirst}, {"delta, last segment", deltaFile, flipLast}, {"full payload, last segment", fullFile, flipLast}} {
		t.Run(c.name, func(t *testing.T) {
			m := newDeltaMachine(t, smallRoot)
			if c.file == fullFile {
				m.unpublish(deltaFile)
			}
			honest := m.repo.Serve(t)
			m.server.Tamper(c.file, c.change)
			if _, err := m.withMirror(honest).Apply(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			m.wantLiar(m.server.URL)
			if c.file == deltaFile && len(m.asked(fullFile)) > 0 {
				t.Errorf("the full payload was asked for: %q", m.server.Requests())
			}
			m.boot()
			m.wantRuns("1.0.1")
			if err := m.health(nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// Two servers have a part in what is wrong: the one that gives it right alone is not blamed.
func TestLiarBehindACut(t *testing.T) {
	m := newDeltaMachine(t, smallRoot)
	m.unpublish(deltaFile)
	liar := m.repo.Serve(t)
	liar.Tamper(fullFile, flipLast)
	m.server.Cut(fullFile, 500_000)
	if _, err := m.withMirror(liar).Apply(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	m.wantLiar(liar.URL)
	m.boot()
	m.wantRuns("1.0.1")
}

// Everybody lies about the delta: the full payload is taken, and each is named once for each payload.
func TestAllLie(t *testing.T) {
	m := newDeltaMachine(t, smallRoot)
	second := m.repo.Serve(t)
	m.server.Tamper(deltaFile, flipLast)
	second.Tamper(deltaFile, flipLast)
	if _, err := m.withMirror(second).Apply(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	r, err := m.agent().Status()
	if err != nil || len(r.State.Liars) != 2 || r.State.Liars[0].Server == r.State.Liars[1].Server {
		t.Errorf("liars %+v, %v", r.State.Liars, err)
	}
	m.boot()
	m.wantRuns("1.0.1")
}

// Servers that answer, and do not give the delta for whatever reason, are asked a few times; then the full payload is taken.
func TestServersRefuseTheDelta(t *testing.T) {
	m := newDeltaMachine(t, smallRoot)
	second := m.repo.Serve(t)
	m.server.Refuse(deltaFile, http.StatusServiceUnavailable)
	second.Refuse(deltaFile, http.StatusInternalServerError)
	if _, err := m.withMirror(second).Apply(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if n := len(m.asked(deltaFile)); n < 2 || n > 10 {
		t.Errorf("the delta was asked for %d times", n)
	}
	if log := m.log.String(); !strings.Contains(log, "delta failed, taking the full payload") || strings.Contains(log, "server sent wrong bytes") {
		t.Errorf("log:\n%s", log)
	}
	m.boot()
	m.wantRuns("1.0.1")

	// With one that gives it, nobody needs the full one.
	m = newDeltaMachine(t, smallRoot)
	m.server.Refuse(deltaFile, http.StatusBadGateway)
	if _, err := m.withMirror(m.repo.Serve(t)).Apply(t.Context(), true); err != nil || len(m.asked(fullFile)) > 0 {
		t.Errorf("%v, requests %q", err, m.server.Requests())
	}
	if next := m.like("1.0.1", smallRoot); !bytes.HasPrefix(m.read("root-b"), next.Root) {
		t.Error("the slot does not hold the root image")
	}
}

// What a server did in one update is not held against it in the next.
func TestLiarsAreForgotten(t *testing.T) {
	m := newDeltaMachine(t, smallRoot)
	m.server.Tamper(deltaFile, flipLast)
	m.update()
	if r, err := m.agent().Status(); err != nil || len(r.State.Liars) != 1 || r.State.Phase != state.Good {
		t.Fatalf("%+v, %v", r.State, err)
	}
	m.repo.Release(t, m.like("1.0.2", smallRoot))
	m.update()
	if r, err := m.agent().Status(); err != nil || len(r.State.Liars) != 0 {
		t.Errorf("%+v, %v", r.State, err)
	}
}
