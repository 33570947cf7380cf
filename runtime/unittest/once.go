package unittest

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/unit"
)

// Connect does nothing.
func (m *Manager) Connect(context.Context) {}

// Once starts a unit without a file.
func (m *Manager) Once(_ context.Context, name, text string, f unit.Files) (<-chan unit.End, error) {
	m.mu.Lock()
	if s := m.units[name]; s != nil && s.active != "inactive" && s.active != "failed" {
		m.mu.Unlock()
		return nil, unit.ErrTaken
	}
	if _, err := m.load(name); err == nil {
		m.mu.Unlock()
		return nil, unit.ErrTaken
	}
	s := &service{name: name, given: parse(text), files: f, ends: make(chan unit.End, 1), failed: make(chan unit.End, 1)}
	m.units[name] = s
	m.mu.Unlock()
	done := make(chan error, 1)
	m.done.Go(func() {
		s.job.Lock()
		defer s.job.Unlock()
		done <- m.start(s)
	})
	select {
	case err := <-done:
		return s.ends, err
	case e := <-s.failed:
		return nil, &unit.StartError{Unit: name, End: e}
	}
}

// listen passes descriptors on, as systemd does (sd_listen_fds_with_names(3)), but for LISTEN_PID=.
func (m *Manager) listen(c *exec.Cmd, s *service) {
	var names []string
	for range m.Sockets {
		names = append(names, "web")
	}
	for n := range s.files {
		names = append(names, unit.FileName(n))
	}
	c.ExtraFiles = slices.Concat(m.Sockets, s.files)
	c.Env = append(c.Env, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
}

// Limit changes lines of a unit of Once that is up.
func (m *Manager) Limit(_ context.Context, name, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.units[name]
	if s == nil || s.given == nil || s.active != "active" {
		return fmt.Errorf("limit %s: Unit %[1]s not loaded", name)
	}
	for k, v := range parse(text) {
		s.given[k] = v
	}
	return nil
}

// Given is what a unit of Once has of a setting.
func (m *Manager) Given(name, setting string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.units[name]; s != nil {
		return first(s.given[setting])
	}
	return ""
}

// ControlGroup says that there is none.
func (m *Manager) ControlGroup(context.Context, string) (string, error) {
	return "", fmt.Errorf("no cgroups: %w", unix.ENOENT)
}

// fail tells who has started it by Once that it has not come up, before what follows.
func (s *service) fail(ws *syscall.WaitStatus) {
	if s.failed == nil {
		return
	}
	e := unit.End{Code: unit.Exited, Status: 1, Result: "exit-code"}
	if ws != nil {
		e.Status = ws.ExitStatus()
	}
	s.failed <- e
}

// tell tells who has started it by Once.
func (s *service) tell(result string, ws *syscall.WaitStatus) {
	if s.ends == nil {
		return
	}
	e := unit.End{Code: unit.Exited, Status: 1, Result: result}
	if ws != nil {
		e.Status = ws.ExitStatus()
		if ws.Signaled() {
			e.Code, e.Status = unit.Killed, int(ws.Signal())
		}
	}
	s.ends <- e
	close(s.ends)
}
