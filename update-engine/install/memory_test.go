package install_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/update-engine/host"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/match"
	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/repotest"
)

// The test binary is the process whose memory is measured, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "install" {
		if err := installAlone(os.Args[2], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// cost is what an installation took.
type cost struct {
	RSS     int64 // most bytes of memory at a time
	CPU     float64
	Syncs   int
	Written install.Written
}

// installAlone installs the payload in a folder, in which everything that it needs has been laid out.
func installAlone(dir string, w io.Writer) error {
	text, err := os.ReadFile(filepath.Join(dir, "release.json"))
	if err != nil {
		return err
	}
	r, err := release.Parse(text)
	if err != nil {
		return err
	}
	device, err := install.OpenDevice(filepath.Join(dir, "slot"))
	if err != nil {
		return err
	}
	defer device.Close()
	folder, err := install.OpenDir(filepath.Join(dir, "esp"))
	if err != nil {
		return err
	}
	defer folder.Close()
	running, err := folder.Open("proa_1.0.0.efi")
	if err != nil {
		return err
	}
	defer running.Close()
	root, offset, err := match.RootHash(running)
	if err != nil {
		return err
	}
	var c cost
	counted := &syncs{File: device}
	i := &install.Installer{Running: root, Slot: counted, Boot: folder, Log: func(w install.Written) { c.Written = w }}
	body, err := os.Open(filepath.Join(dir, "payload"))
	if err != nil {
		return err
	}
	defer body.Close()
	m, err := payload.ReadManifest(body)
	if err != nil {
		return err
	}
	var src payload.Sources
	if !m.Source.IsZero() {
		old, err := os.Open(filepath.Join(dir, "source"))
		if err != nil {
			return err
		}
		defer old.Close()
		size, err := running.Size()
		if err != nil {
			return err
		}
		src = payload.Sources{Root: old, RootSize: offset, Boot: running, BootSize: size}
	}
	if err := host.LetGo(); err != nil { // as update-engine does when it begins to stream
		return err
	}
	err = i.Install(context.Background(), r, install.Payload{Manifest: m, Sources: src, Body: func(at int64) (io.Reader, error) {
		if at > 0 {
			_, err := body.Seek(at, io.SeekStart)
			return body, err
		}
		return body, nil
	}})
	if err != nil {
		return err
	}
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		return err
	}
	c.CPU = float64(use.Utime.Sec+use.Stime.Sec) + float64(use.Utime.Usec+use.Stime.Usec)/1e6
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscanf(peak, "%d kB", &c.RSS); err != nil {
		return err
	}
	c.RSS *= 1024
	c.Syncs = counted.n
	return json.NewEncoder(w).Encode(c)
}

// syncs counts.
type syncs struct {
	install.File
	n int
}

func (s *syncs) Sync() error { s.n++; return s.File.Sync() }

// measure runs installAlone in a process of its own, with the memory limit of update-engine.service and what update-engine sets for its collector.
func measure(t testing.TB, dir string) cost {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "install", dir)
	cmd.Env = append(os.Environ(), "GOMEMLIMIT=32MiB", "GOGC=10")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var c cost
	if err := json.Unmarshal(out, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// lay writes what installAlone needs.
func lay(t testing.TB, running, next *repotest.Build, body []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "esp"), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := next.Release.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"release.json": text, "payload": body, "source": running.Root, "esp/proa_1.0.0.efi": running.Boot,
		"slot": make([]byte, len(next.Root)+1<<20),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// streaming is how much memory the agent may take, in bytes.
const streaming = 25_000_000

// However big a release is, installing it takes little memory. On a busy host the collector's turn comes late and garbage lies longer, so the
// least of three runs counts.
func TestMemory(t *testing.T) {
	build := func(version string) *repotest.Build {
		data := make([]byte, 24<<20)
		noise := rand.NewChaCha8([32]byte{})
		for at := 0; at < len(data); at += 1 << 20 { // half noise, half text
			_, _ = noise.Read(data[at : at+1<<19])
			copy(data[at+1<<19:], strings.Repeat(fmt.Sprintf("release %s, megabyte %d\n", version, at), 10_000))
		}
		return repotest.FromRoot(t, version, data)
	}
	now, next := build("1.0.0"), build("1.0.1")
	var full bytes.Buffer
	root, boot := inputs(next)
	if _, err := payload.Create(t.Context(), &full, []payload.Input{root, boot}, payload.Options{}, nil); err != nil {
		t.Fatal(err)
	}
	d := payload.Delta{Source: now.Release.Root.RootHash}
	d.OldRoot, d.OldBoot = inputs(now)
	d.NewRoot, d.NewBoot = root, boot
	var delta bytes.Buffer
	if _, err := payload.CreateDelta(t.Context(), &delta, d, payload.Options{}, nil); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{"full": full.Bytes(), "delta": delta.Bytes()} {
		c := measure(t, lay(t, now, next, body))
		for try := 1; c.RSS > streaming && try < 3; try++ {
			c = measure(t, lay(t, now, next, body))
		}
		t.Logf("%s payload of %d bytes: %.1f MB of memory, %.2f s of CPU for %d MB, %d syncs", name, len(body), float64(c.RSS)/1e6, c.CPU, len(next.Root)>>20, c.Syncs)
		if c.RSS > streaming {
			t.Errorf("%s: %d bytes of memory, at most %d are allowed", name, c.RSS, streaming)
		}
	}
}
