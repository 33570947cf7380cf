// Package payload is the file that carries a release to a machine: what to write into the passive slot and which boot
// program to put beside it, applied strictly in order in one pass, with no temporary file and bounded memory.
//
// In the flow: the release desk makes it (Create, CreateDelta) and proves it (Prove), a web server serves it as a TUF target, the update
// agent reads the manifest (ReadManifest), compares its digest with the signed release.json and streams the rest through Apply. The verity
// tree of the root image is not in the payload: the machine rebuilds it and compares the root hash with the signed one.
//
//	new image ─▶ COPY, from a source      ─▶ runs of the manifest        ┐
//	          └▶ made ─▶ segments ≤ 4 MiB ─▶ DIFF: control, diff, extra  ├▶ header, manifest, blobs
//	                                     ├─▶ FIT: the same of a forecast ├
//	                                     └─▶ REPLACE: one stream         ┘
//
// An output is covered by runs, in order and without gap: so many bytes that segments make, then so many that are copied from a source
// as they are. What segments make of an output is one sequence, "the made bytes", whatever copies lie between; a segment is
// up to 4 MiB of it. So a change of every inode of an image, each in another block, is one segment and not thousands.
//
// # Sources
//
// What an output may read has one address space:
//
//	root image      the running root image, read through its verity device; then this output itself
//	boot program    the running machine's boot program, then the new root image, then this output itself
//
// A full payload has no running root image and boot program; they are empty then. A source address is written as a shift: the byte at
// address p of the output is copied from, or differs from, the byte at source address p + shift. Of itself an output reads prefixes only,
// and only what is already written.
//
// # Bytes
//
// Fixed integers are little-endian. uv is an unsigned, sv a signed (zigzag) number in base 128, in the shortest form, as of Go's
// encoding/binary, less than 2^40. The header, 64 bytes:
//
//	offset  size  content
//	0       8     magic: 89 50 52 4f 41 0d 0a 1a ("\x89PROA\r\n\x1a", broken by any text-mode transfer)
//	8       4     format version: 2, or 3 if there is a FIT
//	12      4     length P of the packed manifest, at most 2 MiB
//	16      32    SHA-256 of the packed manifest
//	48      4     length M of the manifest, at most 2 MiB; it is raw if M = P, a zstd frame if M > P
//	52      12    zero
//	64      P     packed manifest
//	64+P    ...   blobs, one behind the other in the order of the segments, nothing behind the last
//
// The digest of a payload's manifest, which release.json names, is the SHA-256 of the first 64+P bytes. The manifest:
//
//	size  content
//	32    root hash of the root image that must be running; zero in a full payload, and so are the next three
//	uv    bytes of that root image, without its verity tree
//	32    SHA-256 of the boot program that must have started it
//	uv    its bytes
//	1     number of outputs: 1 or 2
//	per output:
//	1     kind: 1 root image without its verity tree, 2 boot program; kinds ascend
//	uv    bytes, 1 to 16 GiB
//	32    SHA-256 of the whole output
//	uv    number of runs, 1 to 65536
//	uv    number of segments, at most 8192
//	per run:
//	uv    made bytes
//	uv    copied bytes; zero in the last run only, which then has made ones
//	sv    shift of the copied bytes, less that of the run before; absent if there are none
//	per segment:
//	1     operation and codec: 16 * operation (2 DIFF, 3 REPLACE, 4 FIT) + codec of the only or the control stream
//	uv    made bytes, 1 byte to 4 MiB
//	32    SHA-256 of them
//
// and then of a REPLACE:
//
//	uv    stored bytes, if the codec is zstd or bzip2
//	uv    length of the prefix, at most 11 MiB, if the codec is zstd
//	sv    where the prefix ends: source address, less that of the segment's first byte in the output; absent if the length is zero
//
// and of a DIFF or a FIT, whose three streams lie in the payload in this order:
//
//	uv    bytes of the control stream, 1 byte to 1 MiB
//	uv    stored bytes of it, if its codec is zstd or bzip2
//	1     codec of the diff stream + 16 * codec of the extra stream
//	uv    bytes of the diff stream; what the segment has more is those of the extra stream
//	uv    stored bytes of the diff stream, if its codec is zstd, bzip2 or residue
//	uv    stored bytes of the extra stream, if its codec is zstd or bzip2
//
// Codecs: 0 raw, 1 zstd (RFC 8878; frames whose window is at most 16 MiB), 2 bzip2, 3 zeros, which stores nothing, 4 residue (package
// residue), of diff streams only. Stored bytes of all but raw and zeros are at least one and fewer than what they unpack to. The prefix is what a zstd frame may refer to before its first byte,
// as `zstd --patch-from` does it; the stream is one frame then, without checksum and dictionary id.
//
// The control stream is a sequence of instructions until the segment is full:
//
//	sv    shift, less that of the instruction before, less zero in the first
//	uv    so many made bytes are those of the source at this shift, plus bytes of the diff stream, modulo 256
//	uv    so many made bytes are those of the extra stream; not zero if the ones before are
//
// Neither an instruction's added bytes nor a segment end where made bytes do: they go on behind the copied bytes, where the same shift
// leads behind their source. It is how most of the metadata of an image is described by a handful of instructions.
//
// A FIT is a DIFF in which some of the bytes that are added to are records, such as relocations of kernel modules. Its control stream begins with
// where these are in the diff stream, ascending:
//
//	uv    number of ranges, 1 to 16384
//	uv    bytes of the diff stream between the range before and this one
//	uv    records of it, at least 1
//	1     kind: 0 words of 4 bytes, 1 relocations of 24, 2 symbols of 24, 3 versions of 64; plus 128 if a file begins
//	uv    of relocations: the number of the symbol that they lead into by their offset, at most 2^24
//
// In these ranges the diff stream holds what is left of the differences when those that package column expects are taken away. The instructions
// follow.
//
// # Versions
//
// A writer writes the oldest version that has what a payload needs: a full payload is of version 2 and can be read by every machine there is. A
// delta has a FIT only if the root image that it starts from says, in usr/lib/proa/payload-version, that its agent reads
// version 3. A reader refuses what is newer than it with ErrUnsupported before it writes anything; the agent takes the full payload then.
//
// # What a reader may rely on
//
// A reader refuses every number that is out of its range, every read outside the sources and every stream that is not used up to its end.
// A segment is compared with its SHA-256 before any of it is written, so a damaged byte is found within 4 MiB. Copies from the running
// root image are what dm-verity lets through; the boot program is compared with its hash before the first byte of
// anything is written, as its file system authenticates nothing. What the outputs are is for the caller to compare with the signed release.
//
// Everything up to a Mark is written, and the blobs that are needed behind it are known from the manifest alone: Apply can take up there.
// The manifest is authentic once its Digest is the signed one, and with it each segment. The hash of the whole payload says no more, but the
// same, when it is read from the first byte.
package payload
