//go:build !amd64

package relay

import "golang.org/x/sys/unix"

// Start is not there on this architecture: ok is false.
func Start(signals []unix.Signal) (fd int, ok bool, err error) { return -1, false, nil }
