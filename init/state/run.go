package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// run runs a program of the root image in the root image, with this system's /dev, /proc and /sys. code is its exit code, or
// negative if it was not run or was killed.
func (t Tools) run(program string, args ...string) (code int, err error) {
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		target := filepath.Join(t.Root, dir)
		if err := unix.Mount(dir, target, "", unix.MS_BIND, ""); err != nil {
			return -1, fmt.Errorf("bind %s on %s: %w", dir, target, err)
		}
		defer func() {
			if uerr := unix.Unmount(target, unix.MNT_DETACH); uerr != nil {
				err = errors.Join(err, fmt.Errorf("unmount %s: %w", target, uerr))
			}
		}()
	}
	out, state, err := start(program, append([]string{program}, args...), t.Root)
	switch {
	case err != nil:
		return -1, fmt.Errorf("run %s: %w", program, err)
	case !state.Success():
		return state.ExitCode(), fmt.Errorf("%s: %s: %s", path.Base(program), state, oneLine(out))
	}
	return 0, nil
}

// start runs a program to its end, with root as its root directory, and returns what it wrote. It is os/exec without what that
// brings along: search paths, contexts, goroutines.
func start(program string, argv []string, root string) ([]byte, *os.ProcessState, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	p, err := os.StartProcess(program, argv, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/sbin:/usr/bin", "LC_ALL=C"},
		Files: []*os.File{null, w, w},
		Sys:   &syscall.SysProcAttr{Chroot: root},
	})
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, nil, err
	}
	out, err := io.ReadAll(r)
	state, werr := p.Wait()
	return out, state, errors.Join(err, werr)
}

// oneLine makes a program's output fit for an error.
func oneLine(out []byte) string {
	lines := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(lines, "; ")
}
