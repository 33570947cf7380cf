// Package world is everything around a machine that a story or the demo needs: the built releases, the programs that build and sign
// them, a web server with the update repository, a registry with container images.
//
// The servers listen on the host's loopback interface, which is the guest's whole internet (vm.HostAddress). Nothing is
// faked that ships: images, repositories and keys come from the same programs that people run, built here once.
//
//	Programs --image-builder--> Image  --release--> repository folder --Web--> machine
//	                busybox of the tools tree --registry--> machine
package world
