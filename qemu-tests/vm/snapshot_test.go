package vm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/testenv"
)

// talker is a machine with a bare kernel that does what is typed, and has a small disk.
type talker struct {
	*Machine
	t *testing.T
}

func newTalker(t *testing.T, name string, change func(*Config)) talker {
	t.Helper()
	testenv.Machines(t)
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	c := Config{
		Name: name, Dir: filepath.Join(dir, "machine"), Kernel: testKernel(t), Disk: image, DiskSize: 16 << 20, MemoryMiB: 256, CPUs: 1,
		Initrd:     guestInitrd(t, dir, "virtio_blk", "virtio_net", "af_packet"),
		KernelArgs: []string{"console=ttyS0,115200", "panic=1", "quiet", "net.ifnames=0"}, Timeout: 2 * time.Minute,
	}
	if change != nil {
		change(&c)
	}
	m, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(m.Explain())
		}
	})
	k := talker{m, t}
	k.wait("guest: ready")
	return k
}

func (k talker) wait(text string) {
	k.t.Helper()
	if _, err := k.WaitConsole(k.t.Context(), "^"+regexp.QuoteMeta(text)+"$"); err != nil {
		k.t.Fatal(err)
	}
}

// do types a command and waits for the answer.
func (k talker) do(command, want string) {
	k.t.Helper()
	if err := k.Type(command + "\n"); err != nil {
		k.t.Fatal(err)
	}
	k.wait("guest: " + want)
}

func (k talker) off() {
	k.t.Helper()
	if err := k.Type("poweroff\n"); err != nil {
		k.t.Fatal(err)
	}
	k.check(k.WaitOff(k.t.Context()))
}

func (k talker) on() {
	k.t.Helper()
	k.check(k.PowerOn())
	k.wait("guest: ready")
}

func (k talker) check(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// TestSnapshot goes back in time, with a machine that is on and with one that is off.
func TestSnapshot(t *testing.T) {
	k := newTalker(t, "snapshot", nil)
	k.do("count", "counted 1")
	k.do("disk write 7 before", `disk "before" <nil>`)
	k.check(k.Snapshot(t.Context(), "on"))
	for range 2 {
		k.do("count", "counted 2") // It goes on after the snapshot, and each time from there.
		k.do("disk write 7 after", `disk "after" <nil>`)
		begin := time.Now()
		k.check(k.Restore(t.Context(), "on"))
		t.Logf("back in %v", time.Since(begin).Round(time.Millisecond))
		k.do("disk read 7", `disk "before" <nil>`)
	}
	if got := k.Boots(); got != 1 {
		t.Errorf("got %d boots, want the first one only", got)
	}
	goesOn(t, k)
	k.off()
	k.check(k.Snapshot(t.Context(), "off"))
	if _, err := k.Saved("off"); err == nil {
		t.Error("another machine can go on from one that was off")
	}
	k.on()
	k.do("disk write 7 later", `disk "later" <nil>`)
	k.check(k.Restore(t.Context(), "off")) // The power is cut by it.
	k.on()
	k.do("disk read 7", `disk "before" <nil>`)

	if err := k.Restore(t.Context(), "never taken"); err == nil {
		t.Error("went back to a snapshot that is not there")
	}
	k.check(k.Close())
	k.check(k.RemoveDisk())
	left, err := filepath.Glob(filepath.Join(k.Dir(), "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("got %q, %v left, want the two logs", left, err)
	}
}

// goesOn starts another machine from the snapshot of one, beside it: on a disk of its own, and with one more disk from its next boot on.
func goesOn(t *testing.T, k talker) {
	t.Helper()
	saved, err := k.Saved("on")
	k.check(err)
	c := Config{Name: "other", Dir: filepath.Join(t.TempDir(), "other"), Resume: saved, Disks: []EmptyDisk{{Name: "more", Size: 1 << 20}}, Timeout: 2 * time.Minute}
	for what, change := range map[string]func(*Config){
		"a TPM": func(c *Config) { c.TPM = true }, "a log": func(c *Config) { c.LogWrites = true }, "a disk": func(c *Config) { c.Disk = k.Disk() },
	} {
		wrong := c
		change(&wrong)
		if _, err := Start(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "goes on from a snapshot") {
			t.Errorf("with %s: got %v, want it refused", what, err)
		}
	}
	m, err := Start(t.Context(), c)
	k.check(err)
	t.Cleanup(func() { k.check(m.Close()) })
	other := talker{m, t}
	other.do("count", "counted 2")
	other.do("disk read 7", `disk "before" <nil>`)
	other.do("disk write 7 other", `disk "other" <nil>`)
	k.do("disk read 7", `disk "before" <nil>`)
	other.check(other.Snapshot(t.Context(), "own"))
	other.check(other.PowerCycle(t.Context()))
	other.wait("guest: ready")
	other.do("disk read 7", `disk "other" <nil>`)
	if got := other.Boots(); got != 2 {
		t.Errorf("got %d boots, want the one of the snapshot and one", got)
	}
	if got := len(other.now.more); got != 1 {
		t.Errorf("got %d more disks in the second boot, want the one that was added", got)
	}
	other.check(other.Restore(t.Context(), "own")) // in the hardware of then
	other.do("count", "counted 3")
}

func TestGrowDisk(t *testing.T) {
	k := newTalker(t, "grow", nil)
	k.do("disk size", `disk "16777216" <nil>`)
	if err := k.GrowDisk(32 << 20); err == nil || !strings.Contains(err.Error(), "is on") {
		t.Errorf("got %v from a machine that is on", err)
	}
	k.off()
	for _, bad := range []int64{8 << 20, 32<<20 + 1} {
		if err := k.GrowDisk(bad); err == nil {
			t.Errorf("grew to %d", bad)
		}
	}
	k.check(k.GrowDisk(2 << 40))
	k.on()
	k.do("disk size", fmt.Sprintf(`disk "%d" <nil>`, int64(2<<40)))
	k.do("disk write 536870911 end", `disk "end" <nil>`)
}

// TestWriteLog replays what a guest wrote: all of it is the disk, a part is the disk as it was.
func TestWriteLog(t *testing.T) {
	k := newTalker(t, "log", func(c *Config) { c.LogWrites = true })
	k.do("disk write 3 one", `disk "one" <nil>`)
	k.do("disk write 4 two", `disk "two" <nil>`)
	k.check(k.PowerCycle(t.Context())) // The log goes on over a power cut.
	k.wait("guest: ready")
	k.do("disk discard 3", `disk "" <nil>`)
	k.do("disk write 4 three", `disk "three" <nil>`)
	if _, err := k.OpenWriteLog(); err == nil {
		t.Error("opened the log of a machine that is on")
	}
	k.check(k.PowerCut())
	log, err := k.OpenWriteLog()
	k.check(err)
	defer log.Close()

	want, err := os.ReadFile(k.Disk())
	k.check(err)
	file := filepath.Join(t.TempDir(), "replayed")
	blocks := func(n int) string {
		t.Helper()
		k.check(log.DiskAfter(file, n))
		b, err := os.ReadFile(file)
		k.check(err)
		if len(b) != len(want) {
			t.Fatalf("got a disk of %d bytes, want %d", len(b), len(want))
		}
		if n == len(log.Entries) && !bytes.Equal(b, want) {
			t.Error("all writes replayed are not the disk")
		}
		text := func(block int) string { return string(bytes.TrimRight(b[block*4096:(block+1)*4096], "\x00")) }
		return text(3) + "," + text(4)
	}
	blocks(len(log.Entries))
	// Every state is one that the guest made, in its order, and what it was told is durable is behind a flush.
	states := []string{",", "one,", "one,two", ",two", ",three"}
	at := 0
	for n := range len(log.Entries) + 1 {
		got := blocks(n)
		if at+1 < len(states) && got == states[at+1] {
			at++
		}
		if got != states[at] {
			t.Errorf("after %d of %d entries: got %q, want %q", n, len(log.Entries), got, states[at])
		}
	}
	if at != len(states)-1 {
		t.Errorf("got to state %q only", states[at])
	}
	if flushes := log.Flushes(); len(flushes) < 3 {
		t.Errorf("got flushes behind %v of %d entries, want one for each synchronous write", flushes, len(log.Entries))
	}
	if err := k.Restore(t.Context(), "any"); err == nil || !strings.Contains(err.Error(), "logged") {
		t.Errorf("went back under a log: %v", err)
	}
}
