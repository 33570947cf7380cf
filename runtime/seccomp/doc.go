// Package seccomp compiles the linux.seccomp section of config.json to the program the kernel runs before every
// system call, and holds the default section that containerctl gives a container.
//
// Compile is called by oci-runtime for each start; Default is called by containerctl when it writes a bundle. The
// program is classic BPF (seccomp(2), linux/filter.h):
//
//	arch is x86-64          -> binary search over ranges of system call numbers that share an answer
//	arch is i386, if listed -> the same with its own numbers
//	anything else           -> kill the process
//
// A search over ranges takes about nine comparisons where libseccomp's list of names takes hundreds, and the kernel
// runs the program once for each number when it is installed.
//
// Subset: all actions, all argument operators, SCMP_ARCH_X86_64 and SCMP_ARCH_X86. SCMP_ARCH_X32
// is accepted and its calls answered with ENOSYS, which is what a Debian kernel does on its own. Names that do not
// exist on an architecture are skipped (runtime-spec config-linux.md lists names of all architectures at once).
// Several rules for one call are tried in the order of the file; the first that matches decides. Two conditions on
// the same argument in one rule are alternatives, as in runc. Where the default is an errno, a call newer than every
// call the section names gets ENOSYS, so that libraries fall back to the older call.
package seccomp
