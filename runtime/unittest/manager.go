// Package unittest is a service manager for tests: it runs the units that package unit writes, as systemd would, as far as they go.
//
// It knows Type=notify with MAINPID=, ExecStart=, ExecStartPost=, ExecStop= and ExecStopPost= with the variables that
// systemd hands to it (systemd.exec(5), $SERVICE_RESULT, $EXIT_CODE, $EXIT_STATUS), Restart=, StartLimitBurst=, and RestartSec= as a
// hundredth of a second. A unit of another type is a command that is over when it has run. Its process adopts the workloads, as PID 1 does on a machine. It has no cgroups.
package unittest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/unit"
)

// A Manager runs units. Its methods are those of unit.Systemd.
type Manager struct {
	Dirs []string // of unit files
	Logs string   // directory of what units print, one file each
	// Sockets are those of active socket units, which every unit of Once gets, called "web", in front of its files.
	Sockets []*os.File
	// Command makes the process of an Exec line's words.
	Command func(words []string) *exec.Cmd

	mu    sync.Mutex
	units map[string]*service
	watch map[string]*watcher
	done  sync.WaitGroup
}

// New makes a manager; this process adopts orphans from now on.
func New(m *Manager) (*Manager, error) {
	m.units, m.watch = map[string]*service{}, map[string]*watcher{}
	return m, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// service is a unit that was started once.
type service struct {
	name, active, sub, result string
	job                       sync.Mutex // one start or end at a time
	pid, restarts, starts     int
	stopping, frozen          bool
	ended                     chan struct{} // closed when the main process and all behind it have ended
	text                      map[string][]string
	given                     map[string][]string // of Once
	files                     unit.Files
	ends                      chan unit.End
	failed                    chan unit.End // of Once
}

type watcher struct {
	stop    chan struct{}
	command []string
}

func (m *Manager) load(name string) (map[string][]string, error) {
	for _, d := range m.Dirs {
		b, err := os.ReadFile(filepath.Join(d, name))
		if err != nil {
			continue
		}
		return parse(string(b)), nil
	}
	return nil, fmt.Errorf("unit %s not loaded", name)
}

func parse(unit string) map[string][]string {
	text := map[string][]string{}
	for l := range strings.Lines(unit) {
		if k, v, ok := strings.Cut(strings.TrimSpace(l), "="); ok {
			text[k] = append(text[k], v)
		}
	}
	return text
}

// Refresh does nothing: files are read at each start.
func (m *Manager) Refresh(context.Context, string, bool) error { return nil }

// Start starts a unit and returns when it is up or has failed.
func (m *Manager) Start(ctx context.Context, name string) error {
	m.mu.Lock()
	s := m.units[name]
	if s != nil && s.active == "active" {
		m.mu.Unlock()
		return nil
	}
	if s == nil || s.given != nil && (s.active == "inactive" || s.active == "failed") { // one of Once is forgotten then
		s = &service{name: name}
		m.units[name] = s
	}
	s.stopping = false
	m.mu.Unlock()
	s.job.Lock()
	defer s.job.Unlock()
	return m.start(s)
}

// start is called with the job's lock.
func (m *Manager) start(s *service) error {
	if s.active == "active" {
		return nil
	}
	text, err := s.given, error(nil)
	if text == nil {
		text, err = m.load(s.name)
	}
	if err != nil {
		return err
	}
	m.mu.Lock()
	s.text, s.active, s.sub, s.pid = text, "activating", "start", 0
	s.starts++
	s.ended = make(chan struct{})
	burst, _ := strconv.Atoi(first(text["StartLimitBurst"]))
	if burst > 0 && s.starts > burst {
		s.active, s.sub, s.result = "failed", "failed", "start-limit-hit"
		m.mu.Unlock()
		return fmt.Errorf("start %s: start-limit-hit", s.name)
	}
	m.mu.Unlock()
	env, pids, err := m.notify(s)
	if err != nil {
		return err
	}
	out, err := m.run(s, first(text["ExecStart"]), env)
	if first(text["Type"]) != "notify" && err == nil {
		m.mu.Lock()
		s.active, s.sub = "inactive", "dead" // a command
		m.mu.Unlock()
		return nil
	}
	if err == nil {
		if s.pid = <-pids; s.pid < 0 {
			err = errors.New("nothing says that it is ready")
		}
	}
	if err != nil {
		var ws *syscall.WaitStatus
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			status := failed.Sys().(syscall.WaitStatus)
			ws = &status
		}
		s.fail(ws)
		m.finish(s, "exit-code", ws)
		return fmt.Errorf("start %s: %w: %s", s.name, err, out)
	}
	m.mu.Lock()
	s.active, s.sub = "active", "running"
	m.mu.Unlock()
	m.adopt(s)
	m.run(s, first(text["ExecStartPost"]))
	return nil
}

// adopt waits for the end of the main process behind the scenes.
func (m *Manager) adopt(s *service) {
	m.done.Go(func() {
		var ws syscall.WaitStatus
		for {
			if _, err := syscall.Wait4(s.pid, &ws, 0, nil); err != syscall.EINTR {
				break
			}
		}
		s.job.Lock()
		defer s.job.Unlock()
		result := "success"
		switch {
		case ws.Signaled() && ws.Signal() != syscall.SIGKILL:
			result = "signal"
		case ws.ExitStatus() > 0 && ws.ExitStatus() != 143:
			result = "exit-code"
		}
		m.finish(s, result, &ws)
	})
}

// finish ends a run, and begins the next one if the unit says so.
func (m *Manager) finish(s *service, result string, ws *syscall.WaitStatus) {
	env := []string{"SERVICE_RESULT=" + result}
	again := first(s.text["Restart"]) == "always"
	if ws != nil {
		code, status := "exited", strconv.Itoa(ws.ExitStatus())
		if ws.Signaled() {
			code, status = "killed", strings.TrimPrefix(unix.SignalName(ws.Signal()), "SIG")
		}
		env = append(env, "EXIT_CODE="+code, "EXIT_STATUS="+status)
		again = again || first(s.text["Restart"]) == "on-failure" && (result != "success" || status == "143" || status == "KILL")
	}
	s.tell(result, ws)
	for _, line := range s.text["ExecStopPost"] {
		m.run(s, line, env...)
	}
	m.mu.Lock()
	again = again && !s.stopping
	s.result, s.active, s.sub = result, "inactive", "dead"
	if result != "success" {
		s.active, s.sub = "failed", "failed"
	}
	if again {
		s.active, s.sub = "activating", "auto-restart"
		s.restarts++
	} else {
		m.unwatch(s.name)
	}
	close(s.ended)
	m.mu.Unlock()
	if again {
		m.done.Go(func() {
			time.Sleep(10 * time.Millisecond)
			s.job.Lock()
			defer s.job.Unlock()
			m.mu.Lock()
			again = !s.stopping && s.sub == "auto-restart"
			m.mu.Unlock()
			if again {
				m.start(s)
			}
		})
	}
}

// run runs one Exec line to its end and returns what it prints.
func (m *Manager) run(s *service, line string, env ...string) (string, error) {
	if line == "" {
		return "", nil
	}
	c := m.Command(strings.Fields(strings.TrimPrefix(line, "-")))
	if c.Env == nil {
		c.Env = os.Environ()
	}
	c.Env = append(c.Env, env...)
	log, err := os.OpenFile(filepath.Join(m.Logs, s.name+".log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return "", err
	}
	defer log.Close()
	before, _ := log.Seek(0, 2)
	c.Stdout, c.Stderr = log, log
	if line == first(s.given["ExecStart"]) {
		m.listen(c, s)
	}
	err = c.Run()
	b, _ := os.ReadFile(log.Name())
	return string(b[min(int(before), len(b)):]), err
}

// Stop stops a unit and waits until it is down.
func (m *Manager) Stop(_ context.Context, name string) error {
	m.mu.Lock()
	s := m.units[name]
	if s == nil {
		m.mu.Unlock()
		return nil
	}
	s.stopping = true
	m.mu.Unlock()
	s.job.Lock() // until it has started
	m.mu.Lock()
	was, ended := s.active, s.ended
	if was == "active" {
		s.active, s.sub = "deactivating", "stop"
	} else if s.sub == "auto-restart" {
		s.active, s.sub = "inactive", "dead"
	}
	m.mu.Unlock()
	s.job.Unlock()
	if was == "active" {
		m.run(s, first(s.text["ExecStop"]))
		if s.pid > 0 {
			unix.Kill(s.pid, unix.SIGKILL) // KillMode=mixed, if it is still there
		}
		<-ended
	}
	return nil
}

// Restart is Stop and Start.
func (m *Manager) Restart(ctx context.Context, name string) error {
	return errors.Join(m.Stop(ctx, name), m.Start(ctx, name))
}

// Queue starts, stops or restarts and does not wait.
func (m *Manager) Queue(_ context.Context, verb, name string) error {
	do := map[string]func(context.Context, string) error{"start": m.Start, "stop": m.Stop, "restart": m.Restart}[verb]
	if do == nil {
		return fmt.Errorf("unknown verb %q", verb)
	}
	m.done.Go(func() { do(context.Background(), name) })
	return nil
}

// ResetFailed forgets failures and counts of starts.
func (m *Manager) ResetFailed(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.units[name]; s != nil {
		s.starts, s.restarts = 0, 0
		if s.active == "failed" {
			s.active, s.sub = "inactive", "dead"
		}
	}
	return nil
}

// Status is as systemd would say.
func (m *Manager) Status(_ context.Context, names []string) (map[string]unit.Status, error) {
	out := map[string]unit.Status{}
	for _, n := range names {
		st := unit.Status{Load: "loaded", Active: "inactive", Sub: "dead"}
		if _, err := m.load(n); err != nil {
			st.Load = "not-found"
		}
		m.mu.Lock()
		if s := m.units[n]; s != nil {
			st.Active, st.Sub = s.active, s.sub
			if s.given != nil && s.active != "inactive" && s.active != "failed" {
				st.Load = "loaded"
			}
		}
		m.mu.Unlock()
		out[n] = st
	}
	return out, nil
}

// Freeze stops the main process.
func (m *Manager) Freeze(_ context.Context, name string, on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.units[name]
	if s == nil || s.active != "active" {
		return fmt.Errorf("freeze %s: it is not active", name)
	}
	s.frozen = on
	return nil
}

// Restarts is how often a unit was started again.
func (m *Manager) Restarts(_ context.Context, name string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.units[name]; s != nil {
		return s.restarts, nil
	}
	return 0, nil
}

// Watch runs a command every interval until the unit is down.
func (m *Manager) Watch(_ context.Context, name string, interval time.Duration, command []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unwatch(name)
	w := &watcher{make(chan struct{}), command}
	m.watch[name] = w
	s := m.units[name]
	m.done.Go(func() {
		for {
			select {
			case <-time.After(max(interval, 100*time.Millisecond)):
				m.run(s, strings.Join(command, " "))
			case <-w.stop:
				return
			}
		}
	})
	return nil
}

func (m *Manager) unwatch(name string) {
	if w := m.watch[name]; w != nil {
		close(w.stop)
		delete(m.watch, name)
	}
}

// Close stops all units and waits until nothing of them is left.
func (m *Manager) Close() {
	m.mu.Lock()
	var names []string
	for n := range m.units {
		names = append(names, n)
	}
	m.mu.Unlock()
	for _, n := range names {
		m.Stop(context.Background(), n)
	}
	m.done.Wait()
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
