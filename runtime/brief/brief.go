// Package brief makes a Go program cheaper that lives for milliseconds: oci-runtime, of which each container needs one or two.
//
// Go's runtime has a thread that looks after the others. While there is work it wakes every 70 microseconds, which is a tenth of the
// processor time of a container's start and, on a busy machine, as many interruptions of those that work. A program of one goroutine needs
// nobody who takes its processor away, so that thread is told to take its time (timerslack_ns): its sleep then ends with a tick of the
// processor's clock. The rest is said by the //go:debug lines of the program's main package.
//
// Worth doing, but nothing that anything needs: what a kernel or the mount at /proc does not allow is left.
//
// Specification: proc_pid_timerslack_ns(5); sysmon in runtime/proc.go of Go.
package brief

import (
	"bytes"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slack is how late the monitor may be, in nanoseconds: as late as it is anyway in a program that waits.
const slack = "10000000"

// Prepare does it. The calling thread and those it makes are not changed, but threads that the monitor makes are born with its slack, and so
// are processes that such a thread makes: a caller that makes processes is locked to its thread before.
func Prepare() {
	tid := monitor()
	if tid == "" {
		return
	}
	fd, err := unix.Open("/proc/"+tid+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	unix.Write(fd, []byte(slack)) // needs CAP_SYS_NICE
	unix.Close(fd)
}

// monitor returns the thread id of Go's monitor: the first thread that the runtime starts behind the main one. proc(5) lists them in the
// order of their making.
func monitor() string {
	fd, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var buf [512]byte
	n, err := unix.Getdents(fd, buf[:])
	if err != nil {
		return ""
	}
	threads := 0
	for b := buf[:n]; len(b) > direntName; {
		// struct linux_dirent64: inode, offset, length of the entry, type, name.
		size := int(*(*uint16)(unsafe.Pointer(&b[direntSize])))
		name, _, _ := bytes.Cut(b[direntName:size], []byte{0})
		if _, err := strconv.Atoi(string(name)); err == nil {
			if threads++; threads == 2 {
				return string(name)
			}
		}
		b = b[size:]
	}
	return ""
}

const (
	direntSize = 16
	direntName = 19
)
