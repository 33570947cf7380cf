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
	at := 0
	base := uint64(uintptr(unsafe.Pointer(&m[0])))
	word := func(i int) uint64 { return binary.NativeEndian.Uint64(m[at+8*i:]) }
	for {
		res, errno := step(word)
		if errno == 0 {
			keep(m, base, word(wordStore), res, word(wordFlags)&flagWide != 0)
			at = int(word(wordNext) - base)
			continue
		}
		if word(wordOnError) == 0 || (word(wordErrno) != 0 && word(wordErrno) != uint64(errno)) {
			var label []byte
			if n := word(wordLabelLen); n > 0 {
				from := word(wordLabel) - base
				label = m[from : from+n]
			}
			msg := binary.NativeEndian.AppendUint32(nil, KindError)
			msg = append(binary.NativeEndian.AppendUint32(msg, uint32(errno)), label...)
			unix.Write(int(binary.NativeEndian.Uint64(m[p.report+reportFd:])), msg)
			unix.Exit(exitCode(errno, word(wordFlags)))
		}
		at = int(word(wordOnError) - base)
	}
}

// exitCode is what a call's error ends the child with.
func exitCode(e unix.Errno, flags uint64) int {
	switch {
	case flags&flagCommand == 0:
		return 1
	case e == unix.ENOENT:
		return 127
	}
	return 126
}

func step(word func(int) uint64) (uint64, unix.Errno) {
	nr, arg := word(wordNumber), func(i int) uintptr { return uintptr(word(wordArgs + i)) }
	if int64(nr) < 0 {
		if v := int64(arg(0)); v < 0 && v >= -4095 {
			return 0, unix.Errno(-v)
		}
		return uint64(arg(0)), 0
	}
	r, _, e := unix.RawSyscall6(uintptr(nr), arg(0), arg(1), arg(2), arg(3), arg(4), arg(5))
	if e == 0 && r == 0 && word(wordFlags)&flagZeroFails != 0 {
		e = unix.EPIPE
	}
	return uint64(r), e
}

func keep(m []byte, base, list, v uint64, wide bool) {
	if list == 0 {
		return
	}
	for at := list - base; ; at += 8 {
		to := binary.NativeEndian.Uint64(m[at:])
		switch {
		case to == 0:
			return
		case wide:
			binary.NativeEndian.PutUint64(m[to-base:], v)
		default:
			binary.NativeEndian.PutUint32(m[to-base:], uint32(v))
		}
	}
}
