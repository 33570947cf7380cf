package vm

import (
	"strings"
	"testing"
)

func TestScan(t *testing.T) {
	tests := []struct{ line, want string }{
		{"[    3.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100", "kernel panic"},
		{"[    3.1] BUG: kernel NULL pointer dereference, address: 0000000000000000", "kernel bug"},
		{"[    3.1] Oops: Oops: 0002 [#1] PREEMPT SMP PTI", "kernel bug"},
		{"[    3.1] WARNING: CPU: 1 PID: 1 at kernel/foo.c:1 foo+0x1/0x2", "kernel warning"},
		{"[    3.1] ------------[ cut here ]------------", "kernel warning"},
		{"[    3.1] Call Trace:", "call trace"},
		{"[    3.1] watchdog: BUG: soft lockup - CPU#0 stuck for 26s!", "kernel bug"},
		{"[   99.1] INFO: task init:1 blocked for more than 120 seconds.", "lock-up"},
		{"[    3.1] Out of memory: Killed process 300 (updatectl)", "out of memory"},
		{"[    3.1] sshd[300]: segfault at 0 ip 0 sp 0 error 4", "crash"},
		{"[    3.1] EXT4-fs error (device vda5): ext4_lookup:1855", "storage error"},
		{"[    3.1] device-mapper: verity: 253:0: data block 7 is corrupted", "storage error"},
		{"[FAILED] Failed to start sshd.service - OpenSSH Daemon.", "failed unit"},
		{"[DEPEND] Dependency failed for multi-user.target.", "failed unit"},
		{"Nov 21 01:32:12 proa systemd[1]: sshd.service: Failed with result 'exit-code'.", "failed unit"},
		{"Nov 21 01:32:12 proa systemd[1]: basic.target: Found ordering cycle on a.service/start", "ordering cycle"},
		{`audit: type=1400 apparmor="DENIED" operation="open"`, "denial"},
		{"Nov 21 01:32:12 proa foo[1]: open /etc/shadow: Permission denied", "denial"},
		{"Nov 21 01:32:12 proa systemd[1]: /usr/lib/systemd/system/a.service:3: Unknown key 'Foo' in section [Service], ignoring.", "bad unit"},
		{"panic: runtime error: index out of range [3] with length 3", "kernel panic"},
		{"goroutine 1 [running]:", "crash"},
		{"You are in emergency mode. After logging in, type ...", "stuck system"},

		{"[    3.1] UBSAN: array-index-out-of-bounds in fs/foo.c:12:3", "kernel bug"},
		{"[    3.1] Internal error: Oops: 0000000096000004 [#1] SMP", "kernel bug"},
		{"[    3.1] Call trace:", "call trace"}, // arm64
		{"[    3.1] rcu: INFO: rcu_preempt self-detected stall on CPU", "lock-up"},
		{"[    3.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "lock-up"},
		{"[    3.1] watchdog: Watchdog detected hard LOCKUP on cpu 0", "lock-up"},
		{"[    3.1] XFS (vda5): Metadata corruption detected at xfs_agi_verify", "storage error"},
		{"[    3.1] EXT4-fs (vda5): Remounting filesystem read-only", "storage error"},
		{"[    3.1] Aborting journal on device vda5-8.", "storage error"},
		{"[    3.1] nvme nvme0: I/O tag 12 (100c) QID 1 timeout, aborting", "storage error"},
		{"[    3.1] ata1.00: failed command: READ DMA", "storage error"},
		{"[    3.1] sd 0:0:0:0: [sda] tag#0 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_OK", "storage error"},
		{"[    3.1] critical medium error, dev sda, sector 8 op 0x0:(READ)", "storage error"},
		{"Nov 21 01:32:12 proa systemd[1]: Requested transaction contains an unfixable cyclic dependency.", "ordering cycle"},
		{"Nov 21 01:32:12 proa systemd[1]: multi-user.target: Job a.service/start deleted to break ordering cycle starting with b.service/start", "ordering cycle"},
		{"Nov 21 01:32:12 proa systemd[1]: a.service: State 'final-sigterm' timed out. Killing.", "time-out"},
		{"Nov 21 01:32:12 proa systemd[1]: a.service: Watchdog timeout (limit 3min)!", "time-out"},
		{"Nov 21 01:32:12 proa systemd[1]: a.service: Main process exited, code=dumped, status=31/SYS", "crash"},
		{"Nov 21 01:32:12 proa updatectl[1]: goroutine 7 [running]:", "crash"},
		{"Nov 21 01:32:12 proa updatectl[1]: fatal error: all goroutines are asleep - deadlock!", "crash"},
		{"[    3.1] audit: type=1326 audit(1763688732.100:2): auid=4294967295 uid=0 comm=\"mkdir\" sig=31 syscall=83", "denial"},
		{"[    3.1] Lockdown: systemd-hiberna: hibernation is restricted; see man kernel_lockdown.7", "denial"},
		{"[    3.1] Loading of module with unavailable key is rejected", "denial"},
		{"Nov 21 01:32:12 proa systemd[1]: multi-user.target: Cannot add dependency job, ignoring: Unit a.service not found.", "bad unit"},
		{"Nov 21 01:32:12 proa systemd[1]: Configuration file /etc/systemd/system/a.service is marked world-writable. Please remove ...", "bad unit"},
		{"Nov 21 01:32:12 proa systemd[1]: a.service: Processes still around after SIGKILL. Ignoring.", "stuck system"},

		{"[    3.1] EXT4-fs (vda5): recovery complete", ""},
		{"[    3.1] XFS (vda5): Ending clean mount", ""},
		{"[    3.1] nvme nvme0: 2/0/0 default/read/poll queues", ""},
		{"[    3.1] ata1.00: ATA-7: QEMU HARDDISK, 2.5+, max UDMA/100", ""},
		{"[    0.0] Command line: proa.roothash=ab panic=10 console=ttyS0", ""},
		{"[    0.0] Kernel command line: panic=10 denied", ""},
		{"init: arguments panic=10 kernel.panic=10 vm.panic_on_oom=1", ""},
		{"[    0.1] Kernel panic - not syncing: bad panic=10 setting", "kernel panic"},
		{"[    3.9]  panic+0x118/0x2db", ""},
		{"[  OK  ] Started sshd.service - OpenSSH Daemon.", ""},
		{"[    0.2] [Firmware Bug]: TSC doesn't count with P0 frequency!", ""},
		{"[    0.2] ima: No TPM chip found, activating TPM-bypass!", ""},
		{"[    0.2] pcieport 0000:00:01.0: PME: Signaling with IRQ 24", ""},
		{"[    0.2] RAS: Correctable Errors collector initialized.", ""},
	}
	for _, tt := range tests {
		found := Scan("console", []string{tt.line})
		got := ""
		if len(found) > 0 {
			got = found[0].Rule
		}
		if got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.line, got, tt.want)
		}
	}
}

func TestScanAllowances(t *testing.T) {
	lines := []string{
		"[    3.1] Kernel panic - not syncing: sysrq triggered crash",
		"[    3.1] Call Trace:",
		"[FAILED] Failed to start sshd.service",
	}
	found := Scan("console of boot 2", lines, AllowPanic("the story crashes the kernel")...)
	if len(found) != 1 || found[0].Rule != "failed unit" {
		t.Fatalf("got %v, want the failed unit only", found)
	}
	if got, want := found[0].String(), "console of boot 2: failed unit: [FAILED] Failed to start sshd.service"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAllowancesHaveReasons(t *testing.T) {
	for _, a := range append(commonAllowances(), AllowPanic("reason")...) {
		if strings.TrimSpace(a.Reason) == "" {
			t.Errorf("/%s/ has no reason", a.Pattern)
		}
		if a.Pattern.MatchString("") {
			t.Errorf("/%s/ allows everything", a.Pattern)
		}
	}
}

// A login that the harness gave up is no fault of the machine, nor is a bus that PID 1 gave up; everything else of priority error is.
func TestScanErrors(t *testing.T) {
	const journal = "Nov 26 10:01:43 line sshd-session[513]: fatal: ssh_packet_send_debug: send DEBUG: Broken pipe\n" +
		"Nov 26 10:01:44 line systemd[1]: systemd-logind.service: Unexpected error response from GetNameOwner(): Connection terminated\n" +
		"Nov 26 10:01:44 line sshd[300]: fatal: no host key\n"
	found := scanErrors(journal, nil)
	if len(found) != 1 || !strings.Contains(found[0].Text, "no host key") {
		t.Errorf("got %v, want the host key alone", found)
	}
}
