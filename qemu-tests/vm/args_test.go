package vm

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/tcg"
)

func TestArgs(t *testing.T) {
	h := hardware{
		name: "one,two", accel: TCG, memoryMiB: 1024, cpus: 2, dataDirs: []string{"/t/share/qemu"},
		code: "/t/CODE.fd", vars: "/run/a,b/vars.fd", kernelArgs: []string{"no_timer_check", "console=ttyS0,115200"}, given: pairs(map[string]string{"b.key": "KEY-1", "a.list": "x,y"}),
		disk: "/run/a,b/disk.raw", ignition: "/run/a,b/config.ign",
		forwards: []Forward{{Host: 20022, Guest: 22}, {Host: 20080, Guest: 80}}, consoleFD: 3, qmpFD: 4,
	}
	got := strings.Join(h.args(), " ")
	for _, want := range []string{
		"-name guest=one,,two,process=",
		"-L /t/share/qemu",
		"-accel tcg,thread=multi -cpu " + tcg.CPU,
		"-action reboot=shutdown,shutdown=pause",
		"readonly=on,file=/t/CODE.fd",
		"file=/run/a,,b/vars.fd",
		"file=/run/a,,b/disk.raw -device virtio-blk-pci",
		"-smbios type=11,value=io.systemd.stub.kernel-cmdline-extra=no_timer_check console=ttyS0,,115200" +
			" -smbios type=11,value=io.systemd.credential:a.list=x,,y -smbios type=11,value=io.systemd.credential:b.key=KEY-1",
		"hostfwd=tcp:127.0.0.1:20022-:22,hostfwd=tcp:127.0.0.1:20080-:80",
		"-device virtio-net-pci,netdev=net,romfile=",
		"-fw_cfg name=opt/com.coreos/config,file=/run/a,,b/config.ign",
		"-chardev socket,id=console,fd=3", "-chardev socket,id=qmp,fd=4",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s\nwant it to contain %s", got, want)
		}
	}
	for _, no := range []string{"-kernel", "snapshot", "kvm"} {
		if strings.Contains(got, no) {
			t.Errorf("got %s\nwant it without %s", got, no)
		}
	}
}

// Further disks are told apart by their serial numbers; a TPM and ports to the host are there only when asked for.
func TestArgsMoreDevices(t *testing.T) {
	h := hardware{disk: "/d/disk.raw", more: []moreDisk{{file: "/d/a,b.raw"}, {file: "/d/right.raw"}, {file: "/d/stick.raw", usb: true}}, tpm: os.Stdin, tpmFD: 5, journal: "/d/journal.json", hostKeys: "/d/hostkeys"}
	got := strings.Join(h.args(), " ")
	for _, want := range []string{
		"file=/d/a,,b.raw -device virtio-blk-pci,drive=more0,serial=a,,b ",
		"-device virtio-blk-pci,drive=more1,serial=right ",
		"-device qemu-xhci,id=more2-bus -drive if=none,id=more2,format=raw,cache=unsafe,discard=unmap,file=/d/stick.raw -device usb-storage,bus=more2-bus.0,drive=more2,serial=stick ",
		"-chardev socket,id=tpm,fd=5 -tpmdev emulator,id=tpm0,chardev=tpm -device tpm-crb,tpmdev=tpm0 ",
		"-device virtio-serial-pci -chardev file,id=journal,path=/d/journal.json -device virtserialport,chardev=journal,name=com.coreos.ignition.journal" +
			" -chardev file,id=hostkeys,path=/d/hostkeys -device virtserialport,chardev=hostkeys,name=io.proa.ssh.hostkeys",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s\nwant it to contain %s", got, want)
		}
	}
	if got := strings.Join(hardware{disk: "/d/disk.raw"}.args(), " "); strings.Contains(got, "tpm") || strings.Contains(got, "virtio-serial") || strings.Contains(got, "more0") {
		t.Errorf("a machine without further devices has some: %s", got)
	}
}

func TestArgsDirectKernel(t *testing.T) {
	h := hardware{accel: KVM, kernel: "/k/vmlinuz", initrd: "/k/initrd", kernelArgs: []string{"console=ttyS0,115200", "a=b"}}
	got := h.args()
	for _, want := range [][]string{
		{"-kernel", "/k/vmlinuz", "-append", "console=ttyS0,115200 a=b", "-initrd", "/k/initrd"},
		{"-accel", "kvm", "-cpu", "host"},
	} {
		if !containsRun(got, want) {
			t.Errorf("got %q, want it to contain %q", got, want)
		}
	}
	for _, no := range []string{"-smbios", "-fw_cfg", "-drive"} {
		if slices.Contains(got, no) {
			t.Errorf("got %q, want it without %s", got, no)
		}
	}
}

func containsRun(all, run []string) bool {
	for i := range all {
		if len(all)-i >= len(run) && slices.Equal(all[i:i+len(run)], run) {
			return true
		}
	}
	return false
}

func TestCommandLineIsWhatTheShellReads(t *testing.T) {
	argv := []string{"a b", "it's", "", "$HOME", "plain-1.0_x/y:z=1,2", "new\nline", "*"}
	out, err := exec.Command("sh", "-c", "printf '%s\\0' "+commandLine(argv)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(got, argv) {
		t.Errorf("got %q, want %q", got, argv)
	}
}

func TestArgsOfNetworks(t *testing.T) {
	h := hardware{nics: []NIC{{MAC: "52:54:00:00:00:01", fd: 5}, {MAC: "52:54:00:00:00:02", fd: 6}}}
	got := strings.Join(h.args(), " ")
	for _, want := range []string{
		"-netdev dgram,id=lan0,local.type=fd,local.str=5 -device virtio-net-pci,netdev=lan0,mac=52:54:00:00:00:01,romfile=",
		"-netdev dgram,id=lan1,local.type=fd,local.str=6 -device virtio-net-pci,netdev=lan1,mac=52:54:00:00:00:02,romfile=",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s\nwant it to contain %s", got, want)
		}
	}
}

func TestArgsOfWriteLogAndMemory(t *testing.T) {
	got := strings.Join(hardware{disk: "/run/a,b/disk.raw", writeLog: "/run/a,b/writes.log", bus: NVMe, memory: "/run/a,b/memory", hostKeys: "/d/hostkeys"}.args(), " ")
	for _, want := range []string{
		`"driver":"blklogwrites"`, `"filename":"/run/a,b/disk.raw"`, `"filename":"/run/a,b/writes.log"`, `"log-append":true`,
		"-device nvme,serial=proa,drive=disk", "-incoming file:/run/a,b/memory", "file,id=hostkeys,path=/d/hostkeys,append=on ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s\nwant it to contain %s", got, want)
		}
	}
	if strings.Contains(got, "-drive") {
		t.Errorf("got %s\nwant the disk behind the log only", got)
	}
}
