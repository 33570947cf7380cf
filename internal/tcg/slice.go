package tcg

import (
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// LongSlices lets what the calling thread starts keep a CPU for long, for good: call it on a thread of its own (runtime.LockOSThread). What only
// computes loses by being interrupted: with it, 12 boots three at a time on two CPUs took 208 s and 32 CPU s each, without it 297 to 314 s and
// 46 to 50 CPU s. It is a batch process then, with the longest slice that there is (sched_setattr(2); Linux 6.12). Where that is refused,
// everything takes longer.
func LongSlices() {
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH, Runtime: 100_000_000}, 0)
}

// Start starts cmd with LongSlices. cmd must not ask for a signal when its parent dies (Pdeathsig): the thread that starts it ends at once.
func Start(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with it
		LongSlices()
		started <- cmd.Start()
	}()
	return <-started
}
