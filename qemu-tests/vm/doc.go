// Package vm starts and drives machines: Proa disk images under QEMU, and bare kernels with an initramfs.
//
// It is the lab's only way to a machine, for the stories of qemu-tests as for `make run`: the interactive machine is
// the tested machine. Everything a story does to a machine from outside goes through here: power, serial
// console, ssh, QMP, the disk while the machine is off.
//
//	disk image --sparse copy--> <Dir>/disk.raw --any bus--> QEMU q35, OVMF or SeaBIOS --serial--> Console --> console.log
//	Ignition config --fw_cfg opt/com.coreos/config-->         |    |--virtio-net, user mode--> Machine.Run (ssh)
//	kernel arguments --SMBIOS type 11--> systemd-stub or GRUB |    |--virtio-net--> Network --> other machines
//	writes.log <--blklogwrites, if asked for------------------|    |--QMP--> Reset, Shutdown, Snapshot, SetLink, reboot events
//
// What a caller may rely on:
//
//   - QEMU is the one of the tools tree, run as an ordinary user, with TCG unless KVM has been seen to bring up the
//     caller's own image on this host since it was booted (see Accelerator).
//   - A guest that reboots ends its QEMU, and a new one starts on the same disk and firmware variables: a warm
//     reset under TCG can cost ten times a cold start. To a story the machine just reboots; Boots counts.
//   - Guest memory is gone after a reboot and after PowerCut; what the guest wrote to the disk before is kept, flushed
//     or not. A cut that also loses unflushed writes is made from a write log (LogWrites, OpenWriteLog, package blklog).
//   - A Snapshot is the whole machine at one moment. Restore takes the same time whatever happened since, half a second for a small
//     machine, and may be done any number of times.
//   - Machines reach each other by a Network only. Nothing of it is visible on the host, so stories run side by side.
//   - Waiting has deadlines in machine time: wall time less the time in which QEMU was ready to run and the host
//     had no CPU for it. A busy host makes stories slow, not red.
//   - The guest reaches servers on the host's loopback at HostAddress; the host reaches the guest by forwarded ports
//     on 127.0.0.1. Host keys are remembered by first use, or are those that the machine says on its VirtioPorts; any other is an error.
//   - QEMU dies with the process that started it, even when that is killed (prctl PR_SET_PDEATHSIG).
//
// Specs: QEMU's qmp-spec and docs/specs/fw_cfg; SMBIOS 3.x type 11 as read by systemd-stub(7).
package vm
