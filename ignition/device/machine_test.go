package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/signature"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/tooltree"
)

const mib = 1 << 20

// files is a Machine of image files: /dev/vda is DIR/vda. What a partition holds is a file named after where it begins, so that it outlives the
// partition; DIR/vda1 is a link to it for as long as the kernel knows the partition.
type files struct {
	t     *testing.T
	dir   string
	tools *tooltree.Tree
	ran   []string
	busy  map[string]string // name -> what uses it
	own   map[string]bool
	ids   map[string]string
	half  bool // programs die half way
	marks bool // programs only leave their marks, at once
}

// tempDir is in memory where there is such a place: the tests sync hundreds of times.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ignition")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newFiles(t *testing.T, tools *tooltree.Tree, disks map[string]int64) *files {
	t.Helper()
	m := &files{t: t, dir: tempDir(t), tools: tools, busy: map[string]string{}, own: map[string]bool{}, ids: map[string]string{}}
	for name, size := range disks {
		m.create(name, size)
	}
	return m
}

func (m *files) create(name string, size int64) {
	m.t.Helper()
	f, err := os.OpenFile(filepath.Join(m.dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *files) Open(_ context.Context, name string) (Device, error) {
	base := strings.ReplaceAll(strings.TrimPrefix(name, "/dev/"), "/", "!")
	f, err := os.OpenFile(filepath.Join(m.dir, base), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem("no such device", "a block device called "+name, "none", "attach it")
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	return &file{File: f, m: m, base: base, size: info.Size()}, err
}

// Run runs mkfs and luksFormat as they are. What needs the kernel leaves its marks.
func (m *files) Run(ctx context.Context, input []byte, program string, args ...string) error {
	m.ran = append(m.ran, program+" "+strings.ReplaceAll(strings.Join(args, " "), m.dir+"/", "/dev/"))
	last := args[len(args)-1]
	switch {
	case m.half:
		if _, err := os.Stat(last); err == nil { // it looks like a file system already
			return m.mark(last, 1080, "\x53\xef")
		}
		return nil
	case m.marks && (strings.HasPrefix(program, "mkfs.") || args[0] == "luksFormat"):
		return m.pretend(program, last, args)
	case strings.HasPrefix(program, "mkfs."), program == "cryptsetup" && args[0] == "luksFormat":
		if program == "cryptsetup" {
			args = append([]string{"luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}, args[1:]...)
		}
		cmd := m.tools.Command(ctx, program, args...)
		cmd.Stdin = strings.NewReader(string(input))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", program, err, out)
		}
	case program == "cryptsetup" && args[0] == "luksOpen":
		if len(input) == 0 {
			return errors.New("no key")
		}
		m.create("mapper!"+last, 16*mib)
	case program == "mdadm" && args[0] == "--assemble":
		m.create("md!"+filepath.Base(args[2]), 16*mib)
	case program == "mdadm" && args[0] == "--create":
		for _, a := range args {
			if strings.HasPrefix(a, m.dir) {
				name := "any:" + filepath.Base(args[1])
				if err := m.mark(a, 4096, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00--------0123456789abcdef"+name+"\x00"); err != nil {
					return err
				}
			}
		}
		m.create("md!"+filepath.Base(args[1]), 16*mib)
	}
	return nil
}

// pretend writes what Probe looks at.
func (m *files) pretend(program, device string, args []string) error {
	label := ""
	for n, a := range args {
		if a == "-L" || a == "-n" || a == "--label" {
			label = args[n+1]
		}
	}
	write := func(at int64, text string) error { return m.mark(device, at, text) }
	switch program {
	case "mkfs.vfat":
		return errors.Join(write(11, "\x00\x02"), write(71, fmt.Sprintf("%-11s", label)), write(82, "FAT32"), write(510, "\x55\xaa"))
	case "cryptsetup":
		return errors.Join(write(0, "LUKS\xba\xbe\x00\x02"), write(24, label), write(168, "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"))
	}
	return errors.Join(write(1080, "\x53\xef"), write(1024+0x60, "\x40"), write(1024+0x68, "0123456789abcdef"), write(1024+0x78, label))
}

func (m *files) mark(name string, at int64, text string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(text), at)
	return errors.Join(err, f.Close())
}

func (m *files) Mount(_ context.Context, p plan.Mount, format, device string) error {
	line := fmt.Sprintf("mount %s %s %s", format, strings.ReplaceAll(device, m.dir+"/", "/dev/"), p.Path)
	if len(p.Options) > 0 {
		line += " -o " + strings.Join(p.Options, ",")
	}
	m.ran = append(m.ran, line)
	return nil
}

func (m *files) Unmount(path string) error {
	m.ran = append(m.ran, "umount "+path)
	return nil
}

func (m *files) UUID() (string, error) { return System{}.UUID() }

// boot is what a power cut is followed by: the kernel reads the tables; volumes and arrays are not there.
func (m *files) boot() {
	m.t.Helper()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.Contains(name, "!"):
			os.Remove(filepath.Join(m.dir, name))
		case len(name) == 3: // vda
			d, err := m.Open(context.Background(), "/dev/"+name)
			if err != nil {
				m.t.Fatal(err)
			}
			t, err := gpt.Read(d, d.Size(), d.SectorSize())
			if err != nil {
				t = nil
			}
			if err := errors.Join(d.Follow(t), d.Close()); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

// dump is everything there, without what is random.
func (m *files) dump() string {
	m.t.Helper()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	var lines []string
	for _, e := range entries {
		if strings.Contains(e.Name(), "@") {
			continue
		}
		d, err := m.Open(context.Background(), "/dev/"+e.Name())
		if err != nil {
			m.t.Fatal(err)
		}
		found, err := signature.Probe(d, d.Size())
		if err != nil {
			m.t.Fatal(err)
		}
		line := e.Name() + ":"
		for _, s := range found {
			line += " " + s.Type + " " + s.Label
		}
		if t, err := gpt.Read(d, d.Size(), d.SectorSize()); err == nil {
			for _, p := range t.Partitions {
				line += fmt.Sprintf(", %d %s %d-%d", p.Number, p.Name, p.FirstLBA/2048, (p.LastLBA+1)/2048)
			}
		}
		lines = append(lines, line)
		d.Close()
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// file is one of its devices.
type file struct {
	*os.File
	m    *files
	base string
	size int64
}

func (f *file) Path() string               { return filepath.Join(f.m.dir, f.base) }
func (f *file) Size() int64                { return f.size }
func (f *file) SectorSize() int            { return 512 }
func (f *file) ID() string                 { return f.m.ids[f.base] }
func (f *file) Busy(n int) (string, error) { return f.m.busy[f.name(n)], nil }
func (f *file) Own(n int) (bool, error)    { return f.m.own[f.name(n)], nil }
func (f *file) Sync() error                { return nil }
func (f *file) name(n int) string {
	if n == 0 {
		return f.base
	}
	return fmt.Sprint(f.base, n)
}

func (f *file) Follow(t *gpt.Table) error {
	known, err := filepath.Glob(f.Path() + "[0-9]*")
	if err != nil {
		return err
	}
	for _, k := range known {
		if err := os.Remove(k); err != nil {
			return err
		}
	}
	if t == nil {
		return nil
	}
	for _, p := range t.Partitions {
		at := fmt.Sprintf("%s@%d", f.base, p.FirstLBA)
		f.m.create(at, t.Size(p))
		if err := os.Symlink(at, filepath.Join(f.m.dir, f.name(p.Number))); err != nil {
			return err
		}
	}
	return nil
}
