// Package relay turns signals into bytes of a pipe, without Go: a handler of a few instructions writes the number. Package oci waits for it
// beside the end of the workload, and passes the signal on. Package os/signal would do the same with two goroutines and the threads
// they live on, which is a tenth of a container's start.
//
// Only on some architectures; Start says so, and the caller uses os/signal instead.
//
// The handler runs on the alternate stack that every thread of Go's has, and touches nothing but that and the pipe. The pipe does not block:
// of more than a few thousand signals that nobody reads the last are lost.
//
// Specification: sigaction(2), with the restorer that the kernel wants on this architecture.
package relay
