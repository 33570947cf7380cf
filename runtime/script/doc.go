// Package script is the child's half of a container's start as data: an array of system calls, made in the parent while all
// is still Go, and walked by the child without any.
//
// A Go process has threads, so a child made by clone can run next to no Go code before execve. Most runtimes start themselves
// a second time for that, which costs half of a start. Here the parent builds a Program (package run), and
//
//	Start   clones a child that shares this process's memory; about 60 instructions of assembly walk the array in it.
//	        They use no stack and no runtime, and every handler is reset, so the two do not meet in that memory
//	Load    does the same in a second Go process that got the Program through a file: on architectures without the
//	        assembly, under the race detector, and as the test of the other
//
// Each call has arguments, what to do with its result (store it in later arguments: a file descriptor), where to go on
// after success and after an error, and a label. An error that has no place to go on ends the child: it writes the
// errno and the label to the Program's report descriptor and exits with 1 (see Command). Layout, in 64-bit words, of one call:
//
//	number | six arguments | next | next after an error | which errno (0: any) | addresses to store at | label | length | flags
//
// Number -1 is no system call: the result is the first argument. The Program is position independent until it is put in place:
// it holds offsets and a list of where they are.
//
// Specification: the system call convention of Linux (syscall(2)), clone3(2).
package script
