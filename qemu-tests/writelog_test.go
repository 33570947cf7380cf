package qemutests

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/vm/blklog"
)

// TestReplayedWrites logs everything a first boot writes. All of it replayed is the disk; and wherever the power could have
// gone after a flush, there is no state yet or one that its journal makes whole. From one such place the machine boots.
func TestReplayedWrites(t *testing.T) {
	s := begin(t)
	image := s.image("1.0.0", "")
	key, err := vm.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	config, err := provision.New().SSHKey("root", key.AuthorizedKey()).JSON()
	if err != nil {
		t.Fatal(err)
	}
	machine := vm.Config{
		Name: "logged", Dir: filepath.Join(s.dir, "logged"), Disk: image.Disk(),
		Ignition: config, Key: key, LogWrites: true,
	}
	m := s.start(machine)
	boots(t, m, "1.0.0")
	m.AssertClean(t)
	if err := m.PowerCut(); err != nil {
		t.Fatal(err)
	}
	log, err := m.OpenWriteLog()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	flushes := log.Flushes()
	t.Logf("%d entries, %d flushes", len(log.Entries), len(flushes))

	// One disk goes through the log; points are looked at on the way.
	cursor := filepath.Join(s.dir, "cursor.img")
	if err := log.DiskAfter(cursor, 0); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(cursor, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(cursor)
	defer f.Close()
	const points = 12
	done, states := 0, 0
	middle := filepath.Join(s.dir, "middle.img")
	for i := range points {
		n := flushes[(i+1)*len(flushes)/points-1]
		if err := log.Replay(blklog.File{File: f}, done, n); err != nil {
			t.Fatal(err)
		}
		done = n
		if fsckState(t, f) {
			states++
		}
		if i == points/2 {
			if err := vm.CopySparse(middle, cursor, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if states < points/3 {
		t.Errorf("only %d of %d points have a state partition: nothing was judged", states, points)
	}
	if err := log.Replay(blklog.File{File: f}, done, len(log.Entries)); err != nil {
		t.Fatal(err)
	}
	if at, err := firstDifference(m.Disk(), cursor); err != nil || at >= 0 {
		t.Errorf("%v: all writes replayed differ from the disk from byte %d on", err, at)
	}

	machine.Name, machine.Dir, machine.Disk, machine.LogWrites = "replayed", filepath.Join(s.dir, "replayed"), middle, false
	again := s.start(machine)
	os.Remove(middle)
	boots(t, again, "1.0.0")
	again.AssertClean(t)
}

// fsckState reports whether the disk has a state partition, which must be whole once its journal is replayed.
func fsckState(t *testing.T, disk *os.File) bool {
	t.Helper()
	fi, err := disk.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(disk, fi.Size(), 512)
	if err != nil {
		t.Fatal(err)
	}
	p, err := table.Find("state")
	if err != nil {
		return false
	}
	part := filepath.Join(t.TempDir(), "state.ext4")
	if err := copyRange(part, disk, table.Offset(p), table.Size(p)); err != nil {
		t.Fatal(err)
	}
	tools := testenv.Tools(t)
	for _, args := range [][]string{{"-E", "journal_only", "-y", part}, {"-f", "-n", part}} {
		if out, err := tools.Command(t.Context(), "e2fsck", args...).CombinedOutput(); err != nil {
			t.Errorf("e2fsck %v: %v\n%s", args, err, out)
		}
	}
	return true
}

// copyRange copies a part of a sparse file to a new one; holes stay holes.
func copyRange(name string, from *os.File, begin, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := begin; at < begin+size; {
		data, err := unix.Seek(int(from.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= begin+size {
			break
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(from.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		at = min(hole, begin+size)
		if _, err := io.Copy(io.NewOffsetWriter(f, data-begin), io.NewSectionReader(from, data, at-data)); err != nil {
			return err
		}
	}
	return f.Truncate(size)
}

// firstDifference is where two disks begin to differ, -1 if they do not.
func firstDifference(a, b string) (int64, error) {
	fa, err := os.Open(a)
	if err != nil {
		return 0, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return 0, err
	}
	defer fb.Close()
	ba, bb := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; {
		na, erra := io.ReadFull(fa, ba)
		nb, errb := io.ReadFull(fb, bb)
		if !bytes.Equal(ba[:na], bb[:nb]) {
			for i := range min(na, nb) {
				if ba[i] != bb[i] {
					return at + int64(i), nil
				}
			}
			return at + int64(min(na, nb)), nil
		}
		at += int64(na)
		if erra == io.EOF || erra == io.ErrUnexpectedEOF {
			return -1, nil
		}
		if err := errors.Join(erra, errb); err != nil {
			return at, err
		}
	}
}
