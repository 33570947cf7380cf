// Package powercut says of a disk, at any moment of a machine's life, whether the machine would come up if the power went now.
//
// A story logs what a machine writes (vm.Config.LogWrites), Walk replays it onto a Disk, and at every write, and in the middle of
// it, asks the Disk what the two loaders would start:
//
//	blklog.Log --Walk--> Disk: partition table, ESP, slots --Judge--> Picks, or why nothing would boot
//
// A machine comes up if
//
//   - one copy of the partition table is whole, the fixed partitions are where they were, and the boot code is as it was
//   - every file on the ESP but those in EFI/Linux is as it was
//   - the boot program that the loader picks from EFI/Linux (internal/slot: by names under UEFI, by names and GRUB's block under a BIOS; no
//     loader sees an empty file) is byte for byte that of a release
//   - every slot in which /init would take the root image for the one of that release holds all of it, data and tree, and there is one
//
// A root image is not hashed at every point: Open proves once that each release's root.img has the root hash that its boot
// program demands, and from then on the blocks that are written are compared with it. Verify hashes what is on the disk, for a sample.
//
// State is not looked at: losing it loses settings, never the machine, and it has a journal of its own.
//
// What a power cut leaves, by the log: all that was written before the last flush, and of what came after it any part. Walk goes
// through the log in its order, or has the writes between two flushes become durable in another one, as disks do;
// writes to the same place keep theirs. Either way a write may be torn between any two sectors. A write with FUA ends such a stretch
// as a flush does.
package powercut
