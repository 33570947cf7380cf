package script

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxProgram is far above any real one, which has about 60 KB.
const maxProgram = 64 << 20

// WriteTo writes the Program for Load in another process.
func (p *Program) WriteTo(w io.Writer) (int64, error) {
	head := binary.NativeEndian.AppendUint32(nil, uint32(len(p.data)))
	head = binary.NativeEndian.AppendUint32(head, uint32(len(p.relocs)))
	head = binary.NativeEndian.AppendUint32(head, uint32(p.report))
	for _, r := range p.relocs {
		head = binary.NativeEndian.AppendUint32(head, r)
	}
	n, err := w.Write(append(head, p.data...))
	return int64(n), err
}

// Load reads what WriteTo wrote.
func Load(r io.Reader) (*Program, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxProgram))
	if err != nil {
		return nil, fmt.Errorf("read script: %w", err)
	}
	if len(b) < 12 {
		return nil, errors.New("read script: too short")
	}
	size, relocs, report := int(binary.NativeEndian.Uint32(b)), int(binary.NativeEndian.Uint32(b[4:])), int(binary.NativeEndian.Uint32(b[8:]))
	if len(b) != 12+4*relocs+size || report+reportSize > size {
		return nil, fmt.Errorf("read script: %d bytes do not fit its head", len(b))
	}
	p := &Program{data: b[12+4*relocs:], report: report}
	for i := range relocs {
		at := binary.NativeEndian.Uint32(b[12+4*i:])
		if int(at)+8 > size {
			return nil, fmt.Errorf("read script: address at %d of %d", at, size)
		}
		p.relocs = append(p.relocs, at)
	}
	return p, nil
}

// Run walks the Program on this thread. It returns only an error of its own: the last call of a Program is execve, and a
// call that fails ends the process after its report.
func (p *Program) Run() error {
	runtime.LockOSThread()
	m, err := p.place()
	if err != nil {
		return err
	}
	interpret(m, uint64(uintptr(unsafe.Pointer(&m[0]))), uint64(p.report))
	return nil
}

// interpret never returns. A Program may fork: the copy has this thread alone, none of those that Go's scheduler and collector count on, and
// the wish for a pause that they may have left in its memory would be its last. So nothing here looks for one: no function with a
// prologue, no allocation.
//
//go:nosplit
//go:norace
func interpret(m []byte, base, report uint64) {
	at := uint64(0)
	for {
		res, errno := step(m, at)
		if errno == 0 {
			keep(m, base, load(m, at+8*wordStore), res, load(m, at+8*wordFlags)&flagWide != 0)
			at = load(m, at+8*wordNext) - base
			continue
		}
		onError, only := load(m, at+8*wordOnError), load(m, at+8*wordErrno)
		if onError == 0 || only != 0 && only != uint64(errno) {
			store32(m, report+4, uint32(errno))
			store64(m, report+reportLabel, load(m, at+8*wordLabel))
			store64(m, report+reportLabel+8, load(m, at+8*wordLabelLen))
			unix.RawSyscall(unix.SYS_WRITEV, uintptr(load(m, report+reportFd)), uintptr(base+report+reportIov), 2)
			for {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, exitCode(errno, load(m, at+8*wordFlags)), 0, 0)
			}
		}
		at = onError - base
	}
}

// exitCode is what a call's error ends the child with.
//
//go:nosplit
//go:norace
func exitCode(e unix.Errno, flags uint64) uintptr {
	switch {
	case flags&flagCommand == 0:
		return 1
	case e == unix.ENOENT:
		return 127
	}
	return 126
}

//go:nosplit
//go:norace
func step(m []byte, at uint64) (uint64, unix.Errno) {
	nr, first := load(m, at+8*wordNumber), load(m, at+8*wordArgs)
	if int64(nr) < 0 {
		if v := int64(first); v < 0 && v >= -4095 {
			return 0, unix.Errno(-v)
		}
		return first, 0
	}
	rest := at + 8*(wordArgs+1)
	r, _, e := unix.RawSyscall6(uintptr(nr), uintptr(first), uintptr(load(m, rest)), uintptr(load(m, rest+8)), uintptr(load(m, rest+16)),
		uintptr(load(m, rest+24)), uintptr(load(m, rest+32)))
	if e == 0 && r == 0 && load(m, at+8*wordFlags)&flagZeroFails != 0 {
		e = unix.EPIPE
	}
	return uint64(r), e
}

//go:nosplit
//go:norace
func keep(m []byte, base, list, v uint64, wide bool) {
	if list == 0 {
		return
	}
	for at := list - base; ; at += 8 {
		to := load(m, at)
		switch {
		case to == 0:
			return
		case wide:
			store64(m, to-base, v)
		default:
			store32(m, to-base, uint32(v))
		}
	}
}

//go:nosplit
//go:norace
func load(m []byte, at uint64) uint64 { return *(*uint64)(unsafe.Pointer(&m[at])) }

//go:nosplit
//go:norace
func store64(m []byte, at, v uint64) { *(*uint64)(unsafe.Pointer(&m[at])) = v }

//go:nosplit
//go:norace
func store32(m []byte, at uint64, v uint32) { *(*uint32)(unsafe.Pointer(&m[at])) = v }
