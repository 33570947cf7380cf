// Guest is PID 1 of the machine in TestMachine: it does what is typed on the serial console, one word a line.
package main

import (
	"bufio"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	fmt.Println("guest: ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Printf("guest: %s\n", in.Text())
		switch in.Text() {
		case "reboot":
			unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		case "poweroff":
			unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		case "exit":
			os.Exit(1) // The kernel panics without PID 1, and reboots a second later.
		}
	}
}
