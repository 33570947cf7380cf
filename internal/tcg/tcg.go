// Package tcg has what machines need that QEMU emulates (TCG, the Tiny Code Generator), for hosts without KVM: a processor that is quick to
// emulate, the frequency of its time-stamp counter, and time slices that are long.
package tcg

// CPU is the processor as qemu's -cpu takes it. Guests have crashed at random with cmpxchg16b. Without svm nobody loads KVM's modules, which takes
// seconds at the end of every boot. The others are quick on silicon and slow here: TCG copies and clears byte by byte where a processor says that
// its string instructions are fast, flushes more with smap, and walks one page table more with la57. Without them a boot takes 31 CPU seconds
// instead of 38.
const CPU = "max,-cx16,-svm,-erms,-fsrm,-fsrs,-fzrm,-fsrc,-smap,-la57"
