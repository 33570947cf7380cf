package ctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

type logsFlags struct {
	follow, times       bool
	lines, since, until string
}

func logsVerb() verb {
	return verb{name: "logs", args: "NAME", what: "show a container's output, from the journal", min: 1, max: 1, lister: "containers", json: true,
		more:     "The output of all runs is there, and stays as long as the journal keeps it: journalctl -u proa-NAME.service shows it with systemd's own lines.",
		examples: []string{"containerctl logs -f --since 10m web"},
		setup: func(s *flagset.Set) action {
			f := new(logsFlags)
			s.Bool(&f.follow, "f,follow", "go on with new output")
			s.String(&f.lines, "n,tail", "LINES", "only the last lines; all")
			s.Bool(&f.times, "t,timestamps", "with the time of each line")
			s.String(&f.since, "since", "TIME", "only since then; 10m: since ten minutes ago")
			s.String(&f.until, "until", "TIME", "only until then")
			return f.run
		}}
}

// outputOf are the arguments with which journalctl tells what a container's processes have written. The match leaves out systemd's own
// lines about the unit, and events, which are written in the unit as well.
func outputOf(k *store.Container) []string {
	return []string{"--output=json", "--all", "_SYSTEMD_UNIT=" + unit.Of(k), "SYSLOG_IDENTIFIER=" + strings.TrimSuffix(strings.TrimPrefix(unit.Of(k), "proa-"), ".service")}
}

// run asks journalctl for what the container has said.
func (f *logsFlags) run(ctx context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil {
		return err
	}
	args := outputOf(k)
	if f.follow {
		args = append(args, "--follow")
	}
	switch _, err := strconv.ParseUint(f.lines, 10, 31); {
	case f.lines == "" || f.lines == "all":
		if f.follow {
			args = append(args, "--no-tail")
		}
	case err != nil:
		return fmt.Errorf("--tail %q: want a number, or all", f.lines)
	default:
		args = append(args, "--lines="+f.lines)
	}
	if args, err = addTimes(args, f.since, f.until, time.Now()); err != nil {
		return err
	}
	w := bufio.NewWriterSize(c.Out, 64<<10)
	defer w.Flush()
	said := false
	if k.Instance != "" { // what it writes has gone past the journal
		defer func() {
			if !said {
				fmt.Fprintf(c.Err, "containerctl: %s runs in the foreground: its output is with who started it\n", k.Name)
			}
		}()
	}
	return c.journal(ctx, args, func(j entry) error {
		said = true
		if c.asJSON {
			err = json.NewEncoder(w).Encode(map[string]any{"time": j.time(), "message": j.text("MESSAGE")})
		} else {
			if f.times {
				w.WriteString(j.time().Format("2006-01-02T15:04:05.000000Z07:00 "))
			}
			w.WriteString(j.text("MESSAGE"))
			err = w.WriteByte('\n')
		}
		if f.follow && err == nil {
			err = w.Flush()
		}
		return err
	})
}

// entry is one of the journal's, as journalctl --output=json prints it.
type entry map[string]json.RawMessage

// text is a field. One that is no UTF-8 comes as an array of numbers, one that appears several times as an array of both.
func (j entry) text(field string) string {
	var s string
	if json.Unmarshal(j[field], &s) == nil {
		return s
	}
	var b []byte
	var numbers []int
	if json.Unmarshal(j[field], &numbers) == nil {
		for _, n := range numbers {
			b = append(b, byte(n))
		}
		return string(b)
	}
	var several []json.RawMessage
	if json.Unmarshal(j[field], &several) == nil && len(several) > 0 {
		return entry{field: several[0]}.text(field)
	}
	return ""
}

func (j entry) time() time.Time {
	usec, err := strconv.ParseInt(j.text("__REALTIME_TIMESTAMP"), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(usec).UTC()
}

// journal runs journalctl and calls show with each entry.
func (e *Env) journal(ctx context.Context, args []string, show func(entry) error) error {
	cmd := exec.CommandContext(ctx, e.Journal, append([]string{"--quiet", "--no-pager"}, args...)...)
	cmd.Stderr = e.Err
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	dec := json.NewDecoder(bufio.NewReaderSize(out, 64<<10))
	for {
		var j entry
		if err = dec.Decode(&j); err == nil {
			err = show(j)
		}
		if err != nil {
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	} else {
		cmd.Process.Kill()
	}
	werr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return nil // asked to end
	case err != nil:
		return fmt.Errorf("read the journal: %w", err)
	case werr != nil:
		return fmt.Errorf("read the journal: journalctl: %w", werr)
	}
	return nil
}
