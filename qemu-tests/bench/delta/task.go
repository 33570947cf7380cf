package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/qemu-tests/bench/pair"
	"github.com/proa-os/proa/update-engine/extent"
	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/squeeze"
)

// Usage is what a process and its children have used.
type Usage struct {
	CPU    float64 `json:"cpu"`    // seconds
	Memory int64   `json:"memory"` // bytes at the peak, of the largest process
}

func (u Usage) String() string {
	return fmt.Sprintf("%.2f CPU s and %.1f MB", u.CPU, float64(u.Memory)/1e6)
}

func (u Usage) and(o Usage) Usage {
	return Usage{CPU: u.CPU + o.CPU, Memory: max(u.Memory, o.Memory)}
}

// usage runs a command.
func usage(cmd *exec.Cmd) (Usage, error) {
	out := &tail{}
	if cmd.Stderr == nil {
		cmd.Stderr = out
	}
	if err := cmd.Run(); err != nil {
		return Usage{}, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, out.b)
	}
	r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return Usage{}, errors.New("this system does not say what a process has used")
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return Usage{CPU: float64(cpu) / float64(time.Second), Memory: r.Maxrss << 10}, nil
}

// tail keeps the last of what a program has to say.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-2000):]
	return len(p), nil
}

// A Task is what this program does in a process of its own. Old and New are folders of releases.
type Task struct {
	Do      string `json:"do"`            // full, delta or apply
	Old     string `json:"old,omitempty"` // absent with a full payload
	New     string `json:"new"`
	Payload string `json:"payload"`
	Work    string `json:"work,omitempty"` // folder for what apply makes
}

// Made is what a payload holds, in bytes.
type Made struct {
	Size     int64 `json:"size"`
	Manifest int64 `json:"manifest"` // with the header
	Root     int64 `json:"root"`     // blobs of the root image
	Boot     int64 `json:"boot"`     // blobs of the boot program
	Segments int   `json:"segments"`
}

// A reply is what a child says of a task.
type reply struct {
	Made
	Peak int64 `json:"peak"`
}

// do does a task in a child and returns what it made and used.
func (b *bench) do(ctx context.Context, t Task) (Made, Usage, error) {
	self, err := os.Executable()
	if err != nil {
		return Made{}, Usage{}, err
	}
	text, err := json.Marshal(t)
	if err != nil {
		return Made{}, Usage{}, err
	}
	var out jsonBuffer
	cmd := exec.CommandContext(ctx, self, "--task", string(text))
	cmd.Stdout = &out
	cmd.Env = append(os.Environ(), deskCollector)
	if t.Do == "apply" {
		cmd.Env = append(os.Environ(), agentLimit, agentCollector)
	}
	used, err := usage(cmd)
	if err != nil {
		return Made{}, Usage{}, err
	}
	var r reply
	if err := json.Unmarshal(out, &r); err != nil {
		return Made{}, Usage{}, fmt.Errorf("read what %s made: %w", t.Do, err)
	}
	if t.Do == "apply" {
		// It has no children, and the kernel's maximum for a child begins with what the parent had when it was forked.
		used.Memory = r.Peak
	}
	return r.Made, used, nil
}

// What update-engine.service says to the agent, and what that says to its own collector (cmd/update-engine).
const (
	agentLimit     = "GOMEMLIMIT=32MiB"
	agentCollector = "GOGC=10"
)

// deskCollector is what cmd/release says to its own collector.
const deskCollector = "GOGC=400"

type jsonBuffer []byte

func (b *jsonBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// Do does a task of cmd/bench-payload --task and writes what was made to w.
func Do(ctx context.Context, task string, w io.Writer) error {
	var t Task
	if err := json.Unmarshal([]byte(task), &t); err != nil {
		return fmt.Errorf("read task: %w", err)
	}
	do, ok := map[string]func(context.Context) (*payload.Manifest, error){"full": t.full, "delta": t.delta, "apply": t.apply}[t.Do]
	if !ok {
		return fmt.Errorf("read task: no %q", t.Do)
	}
	m, err := do(ctx)
	if err != nil {
		return err
	}
	peak, err := peakMemory()
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(reply{contents(m), peak})
}

// peakMemory is the most that this process has held in memory, in bytes (proc_pid_status(5)).
func peakMemory() (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, line, _ := strings.Cut(string(b), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscanf(line, "%d kB", &kib); err != nil {
		return 0, fmt.Errorf("read VmHWM of /proc/self/status: %w", err)
	}
	return kib << 10, nil
}

func contents(m *payload.Manifest) Made {
	out := Made{Size: m.Size()}
	out.Manifest = out.Size
	for _, o := range m.Outputs {
		out.Segments += len(o.Segments)
		for _, s := range o.Segments {
			out.Manifest -= s.Stored()
			if o.Kind == payload.RootImage {
				out.Root += s.Stored()
			} else {
				out.Boot += s.Stored()
			}
		}
	}
	return out
}

// An opened release.
type opened struct {
	release    *release.Release
	root, boot payload.Input
}

func open(dir string) (o opened, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "release.json"))
	if err != nil {
		return o, err
	}
	if o.release, err = release.Parse(b); err != nil {
		return o, err
	}
	image := pair.Image{Dir: dir}
	root, err := os.Open(image.Root())
	if err != nil {
		return o, err
	}
	boot, err := os.Open(image.Boot())
	o.root = payload.Input{Kind: payload.RootImage, R: root, Size: o.release.Root.HashOffset}
	o.boot = payload.Input{Kind: payload.BootProgram, R: boot, Size: o.release.Boot.Size}
	return o, err
}

func (t Task) full(ctx context.Context) (*payload.Manifest, error) {
	return t.create(func(w io.Writer, new opened, o payload.Options) (*payload.Manifest, error) {
		return payload.Create(ctx, w, []payload.Input{new.root, new.boot}, o, nil)
	})
}

func (t Task) delta(ctx context.Context) (*payload.Manifest, error) {
	return t.create(func(w io.Writer, new opened, o payload.Options) (*payload.Manifest, error) {
		old, err := open(t.Old)
		if err != nil {
			return nil, err
		}
		d := payload.Delta{Source: old.release.Root.RootHash, OldRoot: old.root, OldBoot: old.boot, NewRoot: new.root, NewBoot: new.boot}
		return payload.CreateDelta(ctx, w, d, o, nil)
	})
}

func (t Task) create(do func(io.Writer, opened, payload.Options) (*payload.Manifest, error)) (*payload.Manifest, error) {
	press, err := squeeze.Open()
	if err != nil {
		return nil, err
	}
	new, err := open(t.New)
	if err != nil {
		return nil, err
	}
	f, err := os.Create(t.Payload)
	if err != nil {
		return nil, err
	}
	m, err := do(f, new, payload.Options{Packer: press})
	return m, errors.Join(err, f.Close())
}

// apply proves that the payload makes the new images, as the agent would make them.
func (t Task) apply(context.Context) (*payload.Manifest, error) {
	var src payload.Sources
	if t.Old != "" {
		old, err := open(t.Old)
		if err != nil {
			return nil, err
		}
		src = payload.Sources{Root: old.root.R, RootSize: old.root.Size, Boot: old.boot.R, BootSize: old.boot.Size}
	}
	f, err := os.Open(t.Payload)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return payload.Prove(f, src, t.Work)
}

// changed is how many bytes the files of both images have that are not in the old ones.
func changed(p pair.Pair) (int64, error) {
	old, err := open(p.Old.Dir)
	if err != nil {
		return 0, err
	}
	new, err := open(p.New.Dir)
	if err != nil {
		return 0, err
	}
	var n int64
	for _, side := range [][2]payload.Input{{old.root, new.root}, {old.boot, new.boot}} {
		maps, err := readMaps(side)
		if err != nil {
			return 0, err
		}
		for _, m := range extent.Match(maps[0].Files, maps[1].Files) {
			if !m.Equal {
				n += maps[1].Files[m.New].Size
			}
		}
	}
	return n, nil
}

func readMaps(side [2]payload.Input) (maps [2]*extent.Map, err error) {
	for i, in := range side {
		read := extent.Read
		if in.Kind == payload.BootProgram {
			read = extent.ReadBoot
		}
		if maps[i], err = read(in.R, in.Size); err == nil {
			err = maps[i].Hash(in.R)
		}
		if err != nil {
			return maps, err
		}
	}
	return maps, nil
}
