package payload_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/payload"
)

// maxResident is what applying may cost a machine, in bytes, whatever the payload.
const maxResident = 32 << 20

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

// What applying costs in memory depends on the limits of the format, not on the image.
func TestBoundedMemory(t *testing.T) {
	const size = 2*maxResident + 5
	var b bytes.Buffer
	if _, err := payload.Create(t.Context(), &b, []payload.Input{{Kind: payload.RootImage, R: binary(size, 0), Size: size}}, payload.Options{}, nil); err != nil {
		t.Fatal(err)
	}
	c := errand{Payload: file(t, bytes.NewReader(b.Bytes())), Out: t.TempDir()}.run(t)
	t.Logf("%d bytes from %d in %.2f CPU seconds and %.1f MB", size, b.Len(), c.CPU, float64(c.Resident)/1e6)
	if c.Resident > maxResident {
		t.Errorf("applying takes %d bytes of memory, at most %d are allowed", c.Resident, maxResident)
	}
}
