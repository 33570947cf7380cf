// Package judge holds an OCI runtime against the black-box suites of its peers: runc's tests/integration/*.bats and crun's
// tests/test_*.py. Their files stay where they are, a checkout or a git directory that the caller names; nothing of them is kept here.
//
//	checkout or git directory ──> copy in a scratch folder, test programs built, images packed from this machine's programs
//	                          ──> one file of the suite after the other, in a room of its own ──> TAP ──> table, counts
//
// A suite speaks its own runtime's dialect: what of that the OCI's command line does not have (runc spec, crun --config) is translated by a
// script of a few lines in front of the runtime (runc.sh, crun.sh). It changes no configuration and hides no answer.
//
// What is known not to pass is in known.txt, with the reason. Any other failure, and a file that ends before its plan is fulfilled, is new.
//
// The room is a mount, network and pid namespace; groups that the suites leave are thawed, killed and removed after each file. Needed are
// root, bats, jq, python3, gcc, a static busybox, tar, xz, iproute2 and util-linux, and for seccomp-notify.bats libseccomp's headers. The
// suites choose tests by the host's version of cgroups, and some need what not every kernel has: known.txt is that of a hybrid host.
//
// RunTUF does the like with a TUF client and the TUF project's conformance suite, which needs neither root nor anything of the host.
package judge
