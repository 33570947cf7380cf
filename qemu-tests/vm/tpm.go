package vm

import (
	"fmt"
	"os"
	"path/filepath"
)

// startTPM starts the emulator of a TPM 2.0 (swtpm) and returns the end of its control channel for QEMU. What the TPM holds is in
// <Dir>/tpm and stays over boots; the emulator ends with QEMU, which has the only other end.
func (m *Machine) startTPM() (*os.File, error) {
	dir := filepath.Join(m.cfg.Dir, "tpm")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start TPM: %w", err)
	}
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("start TPM: %w", err)
	}
	defer conn.Close() // a duplicate goes to the emulator
	ours, err := conn.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("start TPM: %w", err)
	}
	defer ours.Close()
	c := m.tools.Command(m.ctx, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,clientfd=3", "--terminate")
	c.ExtraFiles = []*os.File{ours}
	c.Stdout, c.Stderr = m.logs[1], m.logs[1]
	if err := c.Start(); err != nil {
		theirs.Close()
		return nil, fmt.Errorf("start TPM: %w", err)
	}
	go c.Wait() // It says in qemu.log what is wrong with it.
	return theirs, nil
}

// tpmArgs plug the TPM in.
func (h hardware) tpmArgs() []string {
	if h.tpm == nil {
		return nil
	}
	return []string{"-chardev", fmt.Sprintf("socket,id=tpm,fd=%d", h.tpmFD), "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"}
}
