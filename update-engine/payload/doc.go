// Package payload is the file that carries a release to a machine: what to write into the passive slot and which boot
// program to put beside it, applied strictly in order in one pass, with no temporary file and bounded memory.
//
// In the flow: the release desk makes it (Create), a web server serves it as a TUF target, the update agent reads the
// manifest (ReadManifest), compares it with the signed release.json and streams the rest through Apply. The verity tree of
// the root image is not in the payload: the machine rebuilds it and compares the root hash with the signed one.
//
// # Bytes
//
// Integers are little-endian. The header, 64 bytes:
//
//	offset  size  content
//	0       8     magic: 89 50 52 4f 41 0d 0a 1a ("\x89PROA\r\n\x1a", broken by any text-mode transfer)
//	8       4     format version: 1
//	12      4     length M of the manifest, at most 16 MiB
//	16      32    SHA-256 of the manifest
//	48      16    zero
//	64      M     manifest
//	64+M    ...   blobs, one behind the other in the order of the segments, nothing behind the last
//
// The manifest:
//
//	size  content
//	32    source: root hash of the root image that the operations read; zero in a full payload
//	1     number of outputs: 1 or 2
//	per output, in this order:
//	1     kind: 1 root image without its verity tree, 2 boot program; kinds ascend
//	8     size in bytes
//	32    SHA-256 of the whole output
//	4     number of segments
//	and behind the heads, the segments of the first output, then those of the second:
//	1     operation: 1 COPY, 2 DIFF, 3 REPLACE
//	...   by operation
//
// REPLACE: the target bytes are in the payload.
//
//	size  content
//	1     codec: 0 raw, 1 zstd (RFC 8878, window at most 8 MiB), 3 zeros
//	4     length of the target bytes, 1 byte to 4 MiB
//	4     length of the blob: the target's length if raw, 0 if zeros, less than the target's length if zstd
//	32    SHA-256 of the target bytes
//
// COPY (a range of the source unchanged) and DIFF (a range of the source with differences) have their numbers but no
// layout in this version, nor has codec 2 (bzip2): a reader refuses the payload at the first of them.
//
// # What a reader may rely on
//
// Segments follow each other without gap or overlap and fill their output exactly. A segment is compared with its SHA-256
// before it is handed on, so a damaged byte is found within 4 MiB and is never written. The end of a segment is a
// checkpoint: the position in the payload and the position in the output are both known from the manifest alone.
//
// The manifest is authentic only once the whole payload's hash was checked; callers therefore wrap the input in a
// digest.Reader and rely on nothing written before Apply has returned nil. Until then the slot has no boot program.
package payload
