package agent_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/repotest"
)

// aJobAlone is set for the process whose memory is measured: the machine's folder and the server.
const aJobAlone = "PROA_A_JOB_ALONE"

// working is how much memory the agent may take of its own, in bytes: what of 25 MB the pages of the program itself leave, which are those of
// this test here and not update-engine's. A story measures all of it on a machine.
const working = 18_000_000

// An agent that asks the repository, verifies its metadata, and streams a payload that its unprivileged child fetches, takes little memory from
// its start to the armed release, with the limit of update-engine.service and what update-engine sets for its collector. On a busy host the
// collector's turn comes late, so the least of three runs counts.
func TestMemoryOfAJob(t *testing.T) {
	if where := os.Getenv(aJobAlone); where != "" {
		jobAlone(t, where)
		return
	}
	m := newMachine(t)
	data := make([]byte, 32<<20)
	noise := rand.NewChaCha8([32]byte{})
	for at := 0; at < len(data); at += 1 << 20 { // half noise, half text
		_, _ = noise.Read(data[at : at+1<<19])
		copy(data[at+1<<19:], strings.Repeat(fmt.Sprintf("megabyte %d\n", at), 10_000))
	}
	b := repotest.FromRoot(t, "1.0.1", data)
	m.repo.Release(t, b)
	m.write("root.json", m.repo.Root)
	text, err := m.running.Release.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	m.write("running.json", text)
	least := int64(0)
	for try := 0; try == 0 || least > working && try < 3; try++ {
		m.write("root-b", make([]byte, len(b.Root)+1<<20))
		if got := m.measure(); least == 0 || got < least {
			least = got
		}
	}
	t.Logf("%.1f MB of memory for a root image of %d MB", float64(least)/1e6, len(b.Root)>>20)
	if least > working {
		t.Errorf("%d bytes of memory, at most %d are allowed", least, working)
	}
}

// measure has another process do the job from the beginning.
func (m *machine) measure() int64 {
	m.t.Helper()
	for _, left := range []string{"var", "esp/proa_1.0.1+3.efi"} {
		if err := os.RemoveAll(filepath.Join(m.dir, left)); err != nil {
			m.t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(m.t.Context(), os.Args[0], "-test.run=^TestMemoryOfAJob$", "-test.v")
	cmd.Env = append(os.Environ(), aJobAlone+"="+m.dir+" "+m.server.URL, "GOMEMLIMIT=32MiB", "GOGC=10")
	out, err := cmd.CombinedOutput()
	peak := regexp.MustCompile(`most: ([0-9]+) kB`).FindSubmatch(out)
	if err != nil || peak == nil {
		m.t.Fatalf("a job alone: %v\n%s", err, out)
	}
	kB, err := strconv.ParseInt(string(peak[1]), 10, 64)
	if err != nil {
		m.t.Fatal(err)
	}
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
	return kB << 10
}

// jobAlone is that process.
func jobAlone(t *testing.T, where string) {
	dir, url, _ := strings.Cut(where, " ")
	m := &machine{t: t, dir: dir, active: "a", free: 1 << 40, repo: &repotest.Repo{Time: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}, server: &repotest.Server{}}
	m.repo.Root = m.read("root.json")
	running, err := release.Parse(m.read("running.json"))
	if err != nil {
		t.Fatal(err)
	}
	m.running = &repotest.Build{Release: running}
	a := m.agent()
	a.Config.Server = url
	a.Client.Source = a.Counted(child(t, client.Network{}))
	most := 0
	a.Progress = func(string, int64, int64) { most = max(most, anonymous(t)) }
	if r, err := a.Apply(t.Context(), false); err != nil || !r.Armed {
		t.Fatalf("apply: %+v, %v", r, err)
	}
	fmt.Printf("most: %d kB\n", max(most, anonymous(t)))
}

// anonymous is how much memory this process has that is no file's, in kB.
func anonymous(t *testing.T) (kB int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		t.Fatal(err)
	}
	return kB
}
