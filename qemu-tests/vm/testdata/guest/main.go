// Guest is PID 1 of the machines in package vm's tests: it does what is typed on the serial console, one command a line.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := loadModules(); err != nil {
		fmt.Printf("guest: error: %v\n", err)
	}
	fmt.Println("guest: ready")
	count := 0
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		words := strings.Fields(in.Text())
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "reboot":
			unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		case "poweroff":
			unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		case "exit":
			os.Exit(1) // The kernel panics without PID 1, and reboots a second later.
		case "count":
			count++
			fmt.Printf("guest: counted %d\n", count)
		case "disk":
			said, err := disk(words[1:])
			fmt.Printf("guest: disk %q %v\n", said, err)
		case "carrier":
			if err := up(words[1]); err != nil {
				fmt.Printf("guest: error: %v\n", err)
			}
			fmt.Printf("guest: carrier of %s: %s\n", words[1], carrier(words[1]))
		case "listen", "shout":
			go network(words)
		default:
			fmt.Printf("guest: %s\n", in.Text())
		}
	}
}

func loadModules() error {
	for kind, at := range map[string]string{"devtmpfs": "/dev", "sysfs": "/sys"} {
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(kind, at, kind, 0, ""); err != nil {
			return err
		}
	}
	files, _ := filepath.Glob("/modules/*.ko")
	slices.Sort(files)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

// disk is "size", or "read", "write TEXT" and "discard" of a 4096-byte block by its number.
func disk(words []string) (string, error) {
	f, err := os.OpenFile("/dev/vda", os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if words[0] == "size" {
		size, err := f.Seek(0, io.SeekEnd)
		return fmt.Sprint(size), err
	}
	number, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil {
		return "", err
	}
	block := make([]byte, 4096)
	switch words[0] {
	case "read":
		_, err = f.ReadAt(block, number*4096)
	case "write":
		copy(block, words[2])
		_, err = f.WriteAt(block, number*4096)
	case "discard":
		at := [2]uint64{uint64(number) * 4096, 4096}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&at))); errno != 0 {
			err = errno
		}
	}
	return string(bytes.TrimRight(block, "\x00")), err
}

// network is "shout NIC WORD", a frame to everybody, and "listen NIC", which prints what comes.
func network(words []string) {
	const proto = 0x88b5 // IEEE 802, for local experiments
	wire := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, proto))
	nic, err := net.InterfaceByName(words[1])
	if err == nil {
		err = up(words[1])
	}
	fd, serr := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(wire))
	if err != nil || serr != nil {
		fmt.Printf("guest: error: %v, %v\n", err, serr)
		return
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: wire, Ifindex: nic.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	if err := unix.Bind(fd, to); err != nil {
		fmt.Printf("guest: error: %v\n", err)
		return
	}
	for carrier(words[1]) != "1" {
		unix.Nanosleep(&unix.Timespec{Nsec: 10e6}, nil)
	}
	if words[0] == "shout" {
		if err := unix.Sendto(fd, []byte(words[2]+"\x00"), 0, to); err != nil {
			fmt.Printf("guest: error: %v\n", err)
		}
		fmt.Printf("guest: shouted %s\n", words[2])
		return
	}
	fmt.Println("guest: listening")
	for {
		b := make([]byte, 2000)
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			fmt.Printf("guest: error: %v\n", err)
			continue // The card may come back.
		}
		word, _, _ := strings.Cut(string(b[:n]), "\x00")
		fmt.Printf("guest: heard %q\n", word)
	}
}

func carrier(name string) string {
	b, err := os.ReadFile("/sys/class/net/" + name + "/carrier")
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

func up(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
