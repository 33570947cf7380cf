//go:build !amd64 || race

package script

import "errors"

// Direct reports whether Start can be used in this build.
const Direct = false

// Start is not there in this build: the caller starts a second process, which calls Load.
func (p *Program) Start(flags uint64, cgroup int) (pid, pidfd int, err error) {
	return 0, -1, errors.New("clone: no assembly for this build")
}
