// Package archive reads a Debian archive: it finds a mirror, verifies the signed index of a suite and lists its packages.
//
// It is the first step of `image-builder lock`; the mirror part also serves the fetching of locked packages.
// A build never asks for an index again: it trusts the lock.
//
// The chain of trust is
//
//	keys (manifests/keys) --sign--> InRelease --sha256--> Packages --sha256--> package file
//
// so the mirror and the way to it need no trust: they can withhold, or replay an older signed state until its Valid-Until, which
// plain trixie does not have, and no more. That is why Release has its Date: package lock remembers it and accepts no older one.
//
// An InRelease is accepted if one good signature is by a key of the keyring, its Codename is the suite asked for, and now lies between
// its Date and its Valid-Until. A signature is good if its key may sign, is not revoked, expired or weak, and it is not expired itself
// and made with SHA-2 or SHA-3; others beside it do not matter. Only what is inside the signature is used, and a message with anything
// outside of it is refused. Both the compressed index and what comes out of it have the signed size and sum.
//
// Subset: InRelease (not Release with Release.gpg), SHA256, component main, one architecture (its index lists the packages of
// architecture "all" as well). See the Debian wiki's "DebianRepository/Format". A mirror is http://, https:// or file://.
package archive
