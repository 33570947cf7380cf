package agent_test

import (
	"errors"
	"testing"

	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/state"
)

// While a job works everything else that is asked for is told so; afterwards, even after an error, it has its turn.
func TestOneJobAtATime(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	a := m.agent()
	jobs := map[string]func() (*state.Result, error){
		"check":    func() (*state.Result, error) { return a.Check(t.Context()) },
		"apply":    func() (*state.Result, error) { return a.Apply(t.Context(), false) },
		"rollback": func() (*state.Result, error) { return a.Rollback(t.Context(), "9.9.9", state.Given{}, false) },
		"hold":     func() (*state.Result, error) { return a.Hold(nil, state.Given{}) },
		"unhold":   func() (*state.Result, error) { return a.Unhold(state.Given{}) },
		"clear":    func() (*state.Result, error) { return a.ClearQuarantine("9.9.9", state.Given{}) },
	}
	asked := 0
	a.Progress = func(string, int64, int64) {
		a.Progress = nil
		for name, job := range jobs {
			asked++
			if _, err := job(); !errors.Is(err, agent.Busy{}) {
				t.Errorf("%s while a check works: got %v, want %v", name, err, agent.Busy{})
			}
		}
	}
	if _, err := a.Check(t.Context()); err != nil || asked != len(jobs) {
		t.Fatalf("check: %v, %d jobs asked for meanwhile", err, asked)
	}
	for name, job := range jobs {
		if _, err := job(); errors.Is(err, agent.Busy{}) {
			t.Errorf("%s when nothing works: %v", name, err)
		}
	}
}
