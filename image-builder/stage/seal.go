package stage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
)

// A Seal says what files a directory held, so that a change is noticed.
//
// Beside size and sum it has each file's identity: inode and the times of the last change of content and inode. No program can set
// the latter (inode(7)), so a file whose identity is the same has not been written to since, and is not read again. If it differs,
// the content decides.
type Seal struct {
	Files []File `json:"files"` // in the order of names
}

// A File is one file of a Seal.
type File struct {
	Name   string        `json:"name"`
	Size   int64         `json:"size"`
	SHA256 digest.SHA256 `json:"sha256"`
	ID     identity      `json:"id"`
}

type identity struct {
	Inode    uint64 `json:"inode"`
	Modified int64  `json:"mtime"` // nanoseconds
	Changed  int64  `json:"ctime"` // nanoseconds
}

// NewSeal looks at the files of dir. Sums that are known already are passed in, by name; the others are computed. A file passed in with the
// zero sum has none: it is not worth reading, and a new identity counts as a change.
func NewSeal(dir string, known map[string]digest.SHA256) (*Seal, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", dir, err)
	}
	s := &Seal{}
	var newest int64
	for _, e := range entries {
		if !e.Type().IsRegular() {
			return nil, fmt.Errorf("seal %s: %s is not a regular file", dir, e.Name())
		}
		f := File{Name: e.Name()}
		if f.Size, f.ID, err = look(filepath.Join(dir, f.Name)); err != nil {
			return nil, fmt.Errorf("seal %s: %w", dir, err)
		}
		newest = max(newest, f.ID.Changed)
		s.Files = append(s.Files, f)
	}
	Settle(time.Unix(0, newest))
	for i := range s.Files {
		f := &s.Files[i]
		var ok bool
		if f.SHA256, ok = known[f.Name]; ok {
			continue
		}
		if f.SHA256, err = sum(filepath.Join(dir, f.Name)); err != nil {
			return nil, fmt.Errorf("seal %s: %w", dir, err)
		}
	}
	slices.SortFunc(s.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return s, nil
}

// Settle waits until a write would give a file another time than changed, the newest time seen in the files that are looked at. Before
// Linux 6.13 the times of files move in ticks of up to 10 ms (CONFIG_HZ), and on some file systems they still do: a file written to in
// the same tick keeps its time. It waits before contents are read, so that nothing is written unnoticed between the two, and no longer
// than two ticks: a time in the future is not that of the next write.
func Settle(changed time.Time) {
	const ticks = 20 * time.Millisecond
	time.Sleep(min(time.Until(changed.Add(ticks)), ticks))
}

// Check compares dir with the seal; further files in dir do not matter. It reports whether identities had changed but contents had
// not, in which case s has the new ones and may be stored again. A difference is an error that names the file.
func (s *Seal) Check(dir string) (renewed bool, err error) {
	for i := range s.Files {
		f := &s.Files[i]
		name := filepath.Join(dir, f.Name)
		size, id, err := look(name)
		if err != nil {
			return false, err
		}
		if size != f.Size {
			return false, fmt.Errorf("%s: expected %d bytes, found %d", name, f.Size, size)
		}
		if id == f.ID {
			continue
		}
		if f.SHA256.IsZero() {
			return false, fmt.Errorf("%s: was written to", name)
		}
		Settle(time.Unix(0, id.Changed))
		got, err := sum(name)
		if err != nil {
			return false, err
		}
		if got != f.SHA256 {
			return false, fmt.Errorf("%s: expected sha256 %s, found %s", name, f.SHA256, got)
		}
		f.ID, renewed = id, true
	}
	return renewed, nil
}

// Sum returns the sum of the file called name, zero if there is none.
func (s *Seal) Sum(name string) digest.SHA256 {
	for _, f := range s.Files {
		if f.Name == name {
			return f.SHA256
		}
	}
	return digest.SHA256{}
}

func look(name string) (int64, identity, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return 0, identity{}, &os.PathError{Op: "look at", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, identity{}, fmt.Errorf("%s is not a regular file", name)
	}
	return st.Size, identity{Inode: st.Ino, Modified: st.Mtim.Nano(), Changed: st.Ctim.Nano()}, nil
}

func sum(name string) (digest.SHA256, error) {
	f, err := os.Open(name)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer f.Close()
	d, _, err := digest.OfReader(f)
	return d, err
}
