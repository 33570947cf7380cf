// Package quadlet turns declared containers into systemd units: text in, text out, no files and no processes.
//
// A declaration is a unit file with one section of podman's vocabulary, [Container], [Volume], [Network], [Image] or [Pod], beside the
// sections that are systemd's (podman-systemd.unit(5)). The generator (package generator) reads them at boot and at every daemon-reload:
//
//	web.container ─ Parse, Merge ─> File ─ Convert ─> web.service        ExecStart=containerctl declared --name systemd-%N ... IMAGE
//	data.volume                                      data-volume.service  ExecStart=containerctl volume create --ignore systemd-data
//	front.network                                    front-network.service ... network create --ignore systemd-front
//	app.image                                        app-image.service     ... pull IMAGE
//	shop.pod                                         shop-pod.service      ... network namespace up systemd-shop
//
// What is in [Container] becomes flags of containerctl's, which are docker's and podman's, so that this package knows names and
// quoting and no meaning. Specifiers (%n, %i) stay as they are: systemd expands them. The service's main process is the workload.
//
// Parsing follows systemd.syntax(7): sections, comments, lines continued by a backslash, quoting, C escapes, an empty assignment that
// empties a list. It is strict where systemd and podman are not: an unknown section, an unknown key, a key that cannot mean anything
// here and a value that cannot be understood are Problems with file, line and key. A file with problems still becomes a unit, at the
// same places of [Install], but one that says what is wrong and fails (see Unit). No value can begin another line of the unit.
//
// Where the outcome differs from podman's: nothing of ours stays beside the workload, which is the main process; memory and process limits and devices are the unit's own settings; a pod shares its network and what its file says for all its
// containers, and has no container of its own.
package quadlet
