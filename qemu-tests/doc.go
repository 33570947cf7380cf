// Package qemutests tells Proa's stories: whole images on whole machines, from firmware to containers.
//
// A story configures a machine by its front doors only, an Ignition config, a repository, a registry, ssh, and never by a
// hook in the image; it ends with a look at console, journal and units, and an unclean machine fails it. One that is not
// about a first boot goes on from one that it shares with others, on a machine of its own (story.goOn). What a story
// stands on is in the packages beside it: vm (machines), world (servers, releases), provision (configs).
//
// Stories run with PROA_STORIES=1 and need TCG minutes; without it they are skipped and say so. Releases are built into the
// folder PROA_OUT, by default out in the repository; each story's machines leave their logs, and after a failure their
// disks, in its folder stories.
package qemutests
