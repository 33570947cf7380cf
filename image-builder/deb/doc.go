// Package deb reads Debian binary packages and the text formats around them: control paragraphs, versions and
// relations between packages.
//
// It is the format end of the image build: archive parses the signed indexes with it, resolve compares versions
// and relations, tools and the root image unpack the files.
//
// A package file (deb(5), format 2.0) is an ar(5) archive of three members, read here as one stream:
//
//	member            content
//	debian-binary     "2.0\n"
//	control.tar[.x]   the control file, checksums, maintainer scripts
//	data.tar[.x]      the files of the package
//
// where .x is xz, zst or gz. Maintainer scripts are never run and not even shown. Refused: format 1 and 3, members in another
// order, bzip2 and lzma (no longer written by dpkg), ar's long names.
//
// Control paragraphs follow deb822(5), versions Debian Policy 5.6.12 and deb-version(7), relations Debian Policy 7.1.
// Nothing here checks signatures or hashes: bytes must come from a verified source. They are not trusted for all that: damaged ones
// give an error, never a panic; what comes out of a decompressor is capped; a second control file is an error; and whoever unpacks
// asks CheckEntry about each entry first. A hostile xz header makes the decompressor reserve 4 GiB of address space; memory is used only
// as far as bytes come out.
package deb
