// Package kerneltest boots init under a real kernel.
//
// Its tests make a boot program's parts and a small disk (a root image with a fake systemd, package guest, and mke2fs with
// its libraries), start them in QEMU and read the console: the edges of init, which no unit test can reach. The kernel and its
// modules are Debian's, out of the tools tree like all else. Whole machines, with firmware and real systemd, are qemu-tests' matter.
package kerneltest
