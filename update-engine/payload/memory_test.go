package payload_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/bzip2"
	"github.com/proa-os/proa/update-engine/payload"
)

// maxResident is what applying may cost a machine, in bytes, whatever the image. A process of its own has the agent's bar.
const maxResident = 25_000_000

// An errand is what a child process is to apply: it does nothing else, so its memory is what applying costs.
type errand struct{ Payload, Root, Boot, Out string }

// A cost is what it took the child.
type cost struct {
	CPU      float64 // seconds
	Resident int64   // bytes at most
}

func TestMain(m *testing.M) {
	if text := os.Getenv("PROA_PAYLOAD_ERRAND"); text != "" {
		c, err := runErrand(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_ = json.NewEncoder(os.Stdout).Encode(c)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runErrand(text string) (c cost, err error) {
	var e errand
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return c, err
	}
	var src payload.Sources
	if src.Root, src.RootSize, err = open(e.Root); err != nil {
		return c, err
	}
	if src.Boot, src.BootSize, err = open(e.Boot); err != nil {
		return c, err
	}
	f, err := os.Open(e.Payload)
	if err != nil {
		return c, err
	}
	cpu := stopwatch()
	// As the agent reads it, from a network.
	body := bufio.NewReaderSize(f, 32<<10)
	m, err := payload.ReadManifest(body)
	if err == nil {
		if m.RootSize > 0 {
			src.RootSize = m.RootSize // the file has its verity tree behind it
		}
		err = m.Apply(body, src, payload.Mark{}, &disk{dir: e.Out})
	}
	if err != nil {
		return c, err
	}
	c.CPU = cpu()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return c, err
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscanf(line, "%d kB", &c.Resident)
	c.Resident <<= 10
	return c, err
}

func open(name string) (io.ReaderAt, int64, error) {
	if name == "" {
		return nil, 0, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	n, err := f.Seek(0, io.SeekEnd)
	return f, n, err
}

// A disk is a Sink of files, which hashes what is in them at the end, as an installation reads it back.
type disk struct {
	dir  string
	file *os.File
}

func (d *disk) Begin(o payload.Output) (io.WriterAt, error) {
	var err error
	d.file, err = os.Create(filepath.Join(d.dir, strings.ReplaceAll(o.Kind.String(), " ", "-")))
	return d.file, err
}

func (d *disk) Checkpoint(payload.Mark) error { return nil }

func (d *disk) Complete(o payload.Output) error {
	r := digest.NewReader(o.Kind.String(), io.NewSectionReader(d.file, 0, o.Size), o.Size, o.SHA256)
	_, err := io.Copy(io.Discard, r)
	return err
}

func (e errand) run(t testing.TB) cost {
	t.Helper()
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PROA_PAYLOAD_ERRAND="+string(text))
	out, err := cmd.Output()
	var c cost
	if err == nil {
		err = json.Unmarshal(out, &c)
	}
	if err != nil {
		t.Fatalf("child: %v: %s", err, out)
	}
	return c
}

// binary is an image of n bytes that packs as programs do.
func binary(n int64, version uint64) *bytes.Reader {
	r := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, n)
	for i := 0; i+16 <= len(b); i += 16 {
		copy(b[i:], fmt.Sprintf("%07d %x", r.IntN(4000)*1000+int(version), r.Uint32()))
	}
	return bytes.NewReader(b)
}

func file(t testing.TB, r *bytes.Reader) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	b, err := io.ReadAll(r)
	if err == nil {
		err = os.WriteFile(name, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// seldom packs with bzip2 alone, whose unpacking needs the most memory.
type seldom struct{}

func (seldom) Pack(_ context.Context, data, prefix []byte) (payload.Codec, []byte, error) {
	if len(prefix) > 0 {
		return payload.Fast{}.Pack(context.Background(), data, prefix)
	}
	return payload.Bzip2, bzip2.Pack(data), nil
}

// What applying costs in memory depends on the limits of the format, not on the image. On a busy host the collector's turn comes late, so the
// least of three runs counts.
func TestBoundedMemory(t *testing.T) {
	const size = 2*32<<20 + 5
	var full bytes.Buffer
	if _, err := payload.Create(t.Context(), &full, []payload.Input{{Kind: payload.RootImage, R: binary(size, 0), Size: size}}, payload.Options{}, nil); err != nil {
		t.Fatal(err)
	}
	check := func(name string, b []byte, e errand) {
		e.Payload, e.Out = file(t, bytes.NewReader(b)), t.TempDir()
		c := e.run(t)
		for try := 1; c.Resident > maxResident && try < 3; try++ {
			c = e.run(t)
		}
		t.Logf("%s payload of %d bytes in %.2f CPU seconds and %.1f MB", name, len(b), c.CPU, float64(c.Resident)/1e6)
		if c.Resident > maxResident {
			t.Errorf("applying the %s payload takes %d bytes of memory, at most %d are allowed", name, c.Resident, maxResident)
		}
	}
	check("full", full.Bytes(), errand{})

	// Each sixteenth byte differs: four segments, whose diff streams all fill blocks of bzip2.
	const changed = 16 << 20
	in := func(kind payload.Kind, version uint64) payload.Input {
		return payload.Input{Kind: kind, R: binary(changed, version), Size: changed}
	}
	d := payload.Delta{
		Source: digest.Of([]byte("old")), OldRoot: in(payload.RootImage, 0), NewRoot: in(payload.RootImage, 1), OldBoot: in(payload.BootProgram, 0), NewBoot: in(payload.BootProgram, 1),
	}
	var delta bytes.Buffer
	if _, err := payload.CreateDelta(t.Context(), &delta, d, payload.Options{Packer: seldom{}}, nil); err != nil {
		t.Fatal(err)
	}
	old := file(t, binary(changed, 0))
	check("delta", delta.Bytes(), errand{Root: old, Boot: old})
}

// How eagerly a process collects its garbage is not for this package to say.
func TestLeavesTheCollectorAlone(t *testing.T) {
	var b bytes.Buffer
	if _, err := payload.Create(t.Context(), &b, []payload.Input{{Kind: payload.RootImage, R: binary(9000, 0), Size: 9000}}, payload.Options{}, nil); err != nil {
		t.Fatal(err)
	}
	m, err := payload.ReadManifest(&b)
	if err != nil {
		t.Fatal(err)
	}
	const mine = 77
	defer debug.SetGCPercent(debug.SetGCPercent(mine))
	w := &watcher{disk: disk{dir: t.TempDir()}}
	if err := m.Apply(&b, payload.Sources{}, payload.Mark{}, w); err != nil {
		t.Fatal(err)
	}
	if w.percent != mine {
		t.Errorf("while it applied, the GC percent was %d, the program had set %d", w.percent, mine)
	}
}

// A watcher looks at the GC percent.
type watcher struct {
	disk
	percent int
}

func (w *watcher) Checkpoint(payload.Mark) error {
	w.percent = debug.SetGCPercent(100)
	debug.SetGCPercent(w.percent)
	return nil
}
