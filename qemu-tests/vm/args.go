package vm

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/proa-os/proa/internal/tcg"
)

// HostAddress is the host's loopback interface as the guest sees it.
const HostAddress = "10.0.2.2"

// A Forward lets 127.0.0.1:Host on the host reach TCP port Guest of the machine.
type Forward struct{ Host, Guest int }

// hardware is one QEMU process to start; args writes it down as a command line.
type hardware struct {
	name      string
	accel     Accelerator
	memoryMiB int
	cpus      int
	dataDirs  []string // where QEMU finds its own files

	code, vars string // UEFI firmware and its variables; both empty is SeaBIOS
	kernel     string // a bzImage to start without firmware or loader
	initrd     string
	kernelArgs []string // added to the boot program's, or all there is for kernel
	given      []string // system credentials, NAME=VALUE

	disk       string     // raw image, "" for none
	more       []moreDisk // further disks
	bus        Bus
	sectorSize int
	snapshot   bool   // forget all writes to disk
	writeLog   string // file to log the disk's writes in, "" for none
	memory     string // file of saved memory and devices to go on with, "" to start the firmware
	ignition   string // file of the provisioning config, "" for none
	journal    string // file that takes the journal of a failed provisioning, "" for none
	hostKeys   string // file that takes the ssh host keys, "" for none
	forwards   []Forward
	nics       []NIC

	tpm                     *os.File // of startTPM, nil for none
	consoleFD, qmpFD, tpmFD int      // inherited sockets
}

// args is the QEMU command line without the program.
func (h hardware) args() []string {
	a := []string{"-name", "guest=" + value(h.name) + ",process=qemu-system-x86"}
	for _, d := range h.dataDirs {
		a = append(a, "-L", d)
	}
	// Without an SMBus no driver looks for what hangs on it.
	a = append(a, "-no-user-config", "-nodefaults", "-display", "none", "-vga", "none",
		"-machine", "q35,smbus=off", "-global", "ICH9-LPC.disable_s3=1",
		"-m", strconv.Itoa(h.memoryMiB), "-smp", strconv.Itoa(h.cpus))
	if h.accel == KVM {
		a = append(a, "-accel", "kvm", "-cpu", "host")
	} else {
		a = append(a, "-accel", "tcg,thread=multi", "-cpu", tcg.CPU)
	}
	// A reboot and a shutdown both stop the process until the harness has seen the event and quits it.
	a = append(a, "-action", "reboot=shutdown,shutdown=pause",
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d", h.consoleFD), "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", h.qmpFD), "-mon", "chardev=qmp,mode=control",
		"-device", "virtio-rng-pci")
	a = append(a, h.bootArgs()...)
	if h.disk != "" {
		a = append(append(a, h.backendArgs()...), h.diskArgs()...)
	}
	a = append(append(a, h.moreDiskArgs()...), h.tpmArgs()...)
	a = append(a, h.netArgs()...)
	a = append(a, h.portArgs()...)
	if h.ignition != "" {
		a = append(a, "-fw_cfg", "name=opt/com.coreos/config,file="+value(h.ignition))
	}
	if h.memory != "" {
		a = append(a, "-incoming", "file:"+h.memory)
	}
	return a
}

// portArgs are the ports on which the guest says something to the host.
func (h hardware) portArgs() (a []string) {
	if h.journal != "" || h.hostKeys != "" {
		a = append(a, "-device", "virtio-serial-pci")
	}
	if h.journal != "" {
		a = append(a, "-chardev", "file,id=journal,path="+value(h.journal), "-device", "virtserialport,chardev=journal,name=com.coreos.ignition.journal")
	}
	if h.hostKeys != "" {
		file := "file,id=hostkeys,path=" + value(h.hostKeys)
		if h.memory != "" {
			file += ",append=on" // A boot that goes on does not say it again.
		}
		a = append(a, "-chardev", file, "-device", "virtserialport,chardev=hostkeys,name="+hostKeyPort)
	}
	return a
}

func (h hardware) bootArgs() []string {
	if h.kernel != "" {
		a := []string{"-kernel", h.kernel, "-append", strings.Join(h.kernelArgs, " ")}
		if h.initrd != "" {
			a = append(a, "-initrd", h.initrd)
		}
		return a
	}
	var a []string
	if h.code != "" {
		a = append(a, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+value(h.code),
			"-drive", "if=pflash,unit=1,format=raw,file="+value(h.vars))
	}
	if len(h.kernelArgs) > 0 {
		extra := "io.systemd.stub.kernel-cmdline-extra=" + strings.Join(h.kernelArgs, " ")
		a = append(a, "-smbios", "type=11,value="+value(extra))
	}
	for _, c := range h.given {
		a = append(a, "-smbios", "type=11,value="+value("io.systemd.credential:"+c))
	}
	return a
}

// pairs are the entries of m as NAME=VALUE, in the order of names.
func pairs(m map[string]string) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, name+"="+m[name])
	}
	return list
}

// value escapes s for use in a QEMU option list (qemu(1): a comma is doubled).
func value(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// commandLine is a line for people that a shell takes as the same arguments.
func commandLine(argv []string) string {
	words := make([]string, len(argv))
	for i, w := range argv {
		words[i] = shellQuote(w)
	}
	return strings.Join(words, " ")
}

// shellQuote makes s one word of a POSIX shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,+@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
