package agent

import (
	"sync"
	"time"

	"github.com/proa-os/proa/update-engine/state"
)

// A meter knows how far a job is.
type meter struct {
	mu    sync.Mutex
	now   state.Progress // no stage: nothing works
	first int64          // Done at the stage's begin: a job that was resumed does not begin at 0
}

func (m *meter) set(stage string, done, total int64, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if stage != m.now.Stage {
		m.now, m.first = state.Progress{Stage: stage, Since: at}, done
	}
	m.now.Done, m.now.Total = done, total
}

func (m *meter) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = state.Progress{}
}

// read returns nil when nothing works.
func (m *meter) read(at time.Time) *state.Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now.Stage == "" {
		return nil
	}
	p := m.now
	p.Since = p.Since.UTC()
	if took := at.Sub(p.Since); took > 0 {
		p.Rate = int64(float64(p.Done-m.first) / took.Seconds())
	}
	if p.Rate > 0 && p.Total > p.Done {
		p.Left = (p.Total - p.Done) / p.Rate
	}
	return &p
}

// progress says how far a job is.
func (a *Agent) progress(stage string, done, total int64) {
	a.meter.set(stage, done, total, time.Now()) // by a clock that nobody sets
	if a.Progress != nil {
		a.Progress(stage, done, total)
	}
}
