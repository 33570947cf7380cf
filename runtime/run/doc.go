// Package run starts and ends containers: the life cycle of the OCI runtime specification (runtime.md), without a
// process of our own that stays.
//
// It is the edge behind oci-runtime's command line (package oci). A start goes through two processes:
//
//	caller: Create/Run                         child: the same program again ("stage two"), PID 1 of the container
//	  check config.json (package spec)
//	  make the state directory = take the ID
//	  clone with the namespaces  ------------>   make mounts, devices, limits below the root directory,
//	                                             pivot_root into it, drop ids and capabilities
//	  write state.json, pid file <-- ready ---
//	                             --- go ----->   install seccomp, execve the workload
//
// The two talk over a socket pair. Nothing happens behind "ready" unless the caller is still there to say "go": killing
// either at any moment leaves at most the state directory, which Delete removes. Create stops before "go" and leaves the
// child listening on a socket in the state directory; Start says "go" there.
//
// The workload becomes the child of whoever adopts the caller's orphans: as a systemd unit of Type=forking it is the
// unit's main process, in the unit's cgroup, with the unit's output.
//
// Invariants. No path of a hostile root file system leads out of it: targets are opened with openat2(RESOLVE_IN_ROOT)
// and mounted by file descriptor (move_mount(2)). The program file is unreachable for writing from the container: it
// is on EROFS, or stage two is a sealed copy in memory. No file descriptor but 0, 1 and 2 reaches the workload, and a
// working directory outside of the root is refused. On failure nothing is left: no state, no process, no cgroup.
//
// State, one directory for each container below --root:
//
//	<id>/config.json   what was asked for, for exec
//	<id>/state.json    pid, its start time, bundle, cgroup
//	<id>/start.sock    only while created and not yet started
//
// Not here: user namespaces, terminals, hooks, cgroup limits; package spec refuses configurations that ask for them.
// Needs Linux 5.12 (mount_setattr) and root.
package run
