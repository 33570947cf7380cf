// Package guesttest runs tests as PID 1 of a machine: as root, under a real kernel, with disks of their own.
//
// The test binary is its own initramfs. On the host a test prepares disks and calls Run, which starts QEMU with the tools
// tree's kernel and this binary as /init; there the same test runs again, finds Inside true, and does what needs a kernel.
// What it logs, and each of its subtests, is shown by the host's `go test` as if it had run there. It takes two seconds.
//
//	func TestMain(m *testing.M) { guesttest.Main(m) }
//
//	func TestMount(t *testing.T) {
//		if guesttest.Inside() {
//			... mount /dev/vda, look at it ...
//			return
//		}
//		... make the disk image ...
//		guesttest.Run(t, guesttest.Machine{Modules: []string{"virtio_blk", "erofs"}, Disks: []guesttest.Disk{{File: image}}})
//	}
//
// Boot, Kernel, Modules and Archive are what Run is made of, for tests that bring another /init.
//
// A test passes if the guest says so in its last line. A guest that hangs, panics or whose kernel warns is a failure, unless
// the panic is what the test is for (Machine.Panic). Guests run under TCG and do not see the host's files or network. Tests
// with guests are part of `make test`; without PROA_STORIES=1 they are skipped and say so (testenv.Machines).
//
// Specs: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst (newc) and
// Documentation/admin-guide/kernel-parameters.rst (what the kernel hands to init).
package guesttest
