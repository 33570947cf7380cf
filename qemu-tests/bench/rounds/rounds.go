// Package rounds runs commands again and again, each once a round and in a shuffled order, and times them on the machine where it is: the
// clock, and the CPU time of the whole machine, since a service manager works for a command outside of the command's own processes.
//
// It imports nothing large: package oneshot copies its program, cmd/bench-rounds, to a machine.
package rounds

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// A Plan says what to run.
type Plan struct {
	Rounds   int
	Commands []Command
	Settle   time.Duration // after a command's end, for what the machine does then: it counts as CPU time, and not as wall time
	Stat     string        // cgroup v2's cpu.stat of the machine
}

// A Command is measured under a name.
type Command struct {
	Name string
	Args []string
}

// A Sample is one run.
type Sample struct {
	Wall time.Duration
	CPU  time.Duration // of the machine, from the start to the end of settling
}

// Run carries the plan out: samples by name. Each command is run once before, unmeasured. One that fails ends it all.
func Run(p Plan) (map[string][]Sample, error) {
	out := map[string][]Sample{}
	for _, c := range p.Commands {
		if _, err := p.once(c); err != nil {
			return nil, err
		}
	}
	for range p.Rounds {
		for _, i := range rand.Perm(len(p.Commands)) {
			c := p.Commands[i]
			s, err := p.once(c)
			if err != nil {
				return nil, err
			}
			out[c.Name] = append(out[c.Name], s)
		}
	}
	return out, nil
}

func (p *Plan) once(c Command) (Sample, error) {
	// A file for a pipe: no goroutine reads while the clock runs.
	words, err := os.CreateTemp("", "words")
	if err != nil {
		return Sample{}, err
	}
	defer os.Remove(words.Name())
	defer words.Close()
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Stdout, cmd.Stderr = words, words
	before, err := usage(p.Stat)
	if err != nil {
		return Sample{}, err
	}
	begin := time.Now()
	err = cmd.Run()
	wall := time.Since(begin)
	if err != nil {
		b, _ := os.ReadFile(words.Name()) // best effort: the error is told anyway
		return Sample{}, fmt.Errorf("%s: %s: %w: %s", c.Name, strings.Join(c.Args, " "), err, bytes.TrimSpace(b))
	}
	time.Sleep(p.Settle)
	after, err := usage(p.Stat)
	return Sample{Wall: wall, CPU: after - before}, err
}

// usage reads usage_usec.
func usage(stat string) (time.Duration, error) {
	b, err := os.ReadFile(stat)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %w", stat, err)
			}
			return time.Duration(n) * time.Microsecond, nil
		}
	}
	return 0, fmt.Errorf("read %s: no usage_usec in %q", stat, b)
}
