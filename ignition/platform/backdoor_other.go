//go:build !amd64

package platform

import (
	"errors"
	"runtime"
)

func backdoor(*Registers) error {
	return errors.New("talk to the hypervisor: VMware's guestinfo is not read on " + runtime.GOARCH)
}
