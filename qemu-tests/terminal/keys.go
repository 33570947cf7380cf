package terminal

// A command is what a key behind Ctrl-A asks for; the keys are those of QEMU's own terminal.
type command byte

const (
	none  command = 0
	quit  command = 'x' // end QEMU at once
	reset command = 'r' // the reset button
	cut   command = 'p' // pull the plug, and put it in again
	help  command = 'h'
)

const ctrlA = 0x01

// keys splits what is typed into what the guest gets and commands. Ctrl-A twice is Ctrl-A for the guest; any other key behind
// Ctrl-A is swallowed, so that a slip does nothing.
type keys struct{ escaped bool }

// next takes one byte. send says that the guest gets it.
func (k *keys) next(b byte) (send bool, c command) {
	if !k.escaped {
		k.escaped = b == ctrlA
		return !k.escaped, none
	}
	k.escaped = false
	switch {
	case b == ctrlA:
		return true, none
	case command(b) == quit, command(b) == reset, command(b) == cut, command(b) == help:
		return false, command(b)
	}
	return false, none
}

const helpText = `
Ctrl-A x  end the machine at once     Ctrl-A r  reset button
Ctrl-A p  pull the plug, power on     Ctrl-A Ctrl-A  send Ctrl-A
`
