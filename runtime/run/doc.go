// Package run starts and ends containers: the life cycle of the OCI runtime specification (runtime.md), without a
// process of our own that stays.
//
// It is the edge behind oci-runtime's command line (package oci). A start:
//
//	caller: Create/Run                         child: PID 1 of the container, no Go: it walks a script
//	  check config.json (package spec)
//	  make the state directory = take the ID
//	  cgroup; write the script
//	  clone with the namespaces  ------------>   session, lo, host name, sysctl
//	  (open what is to be bound)                 make proc, sysfs, mqueue, cgroup2: instances of its namespaces
//	  enter its mount namespace, <-- mounts --
//	  make the tree by descriptors,
//	  hooks, pivot_root, come back;
//	  limits, OOM score          --- go ----->   capabilities, ids, working directory, look for the program
//	  write state.json, pid file <-- ready ---
//	                             --- go ----->   install seccomp, execve the workload
//
// So everything that takes decisions is Go in the caller, and the child's part is an array of system calls (package script),
// walked by a few lines of assembly in the memory of the caller or, where there are none for the architecture, by a second
// process. Both take the same script. PROA_OCI_PORTABLE=1 in the environment asks for the second way.
//
// The two talk over a socket pair. Nothing happens behind "ready" unless the caller is still there to say "go": killing
// either at any moment leaves at most the state directory and the cgroup, which Delete removes. Create ends behind the first
// two "go"s and leaves the child waiting at a socket in the state directory; Start says "go" there.
//
// The workload becomes the child of whoever adopts the caller's orphans: as a systemd unit of Type=forking it is the
// unit's main process, in the unit's cgroup, with the unit's output.
//
// Invariants. No path of a hostile root file system leads out of it: targets are opened with openat2(RESOLVE_IN_ROOT)
// and mounted by file descriptor (move_mount(2)). The program file is unreachable for writing from the container: it
// is on a file system without writing, or is executed through a read-only mount (Protect). No file descriptor but 0, 1 and 2
// reaches the workload, and a working directory outside of the root is refused. On failure nothing is left: no state, no
// process, no cgroup.
//
// State, one directory for each container below --root:
//
//	<id>/config.json   what was asked for, for exec
//	<id>/state.json    pid, its start time, bundle, cgroup
//	<id>/start.sock    only while created and not yet started
//
// Hooks run where the specification says: prestart and createRuntime by the caller, createContainer in the container's namespaces
// with the caller's files, all three between the last mount and pivot_root; startContainer in the container with the workload's rights,
// poststart and poststop by the caller. When one fails, the container is removed and poststop runs, whose errors are warnings. One without
// an environment has that of where it runs.
//
// What config.json leaves open is done as engines know it from others: HOME from the image's /etc/passwd, the working directory made where
// it is missing, tmpfs with the mode of the directory it covers, pipes of standard output given to the workload's user, sockets of an
// activated caller (LISTEN_FDS) passed on.
//
// In a user namespace the child makes every file system, so that they belong to it; device nodes are bound from the caller's /dev.
//
// A user or time namespace by path, and the time namespace of a container that exec enters, are entered by a copy of the child that
// has memory and thread of its own (file fork.go).
//
// Needs Linux 5.12 (mount_setattr; idmapped mounts and time namespaces 6.1) and root.
package run
