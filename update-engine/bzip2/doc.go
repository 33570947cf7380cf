// Package bzip2 packs bytes as bzip2 does. Of what the machine can unpack it is the best for streams of differences, which are nearly all
// zeros; the machine uses compress/bzip2, which only unpacks.
//
//	bytes ─▶ runs shortened ─▶ block, at most 900,000 bytes ─▶ sorted (Burrows-Wheeler) ─▶ moved to front ─▶ symbols ─▶ Huffman codes
//
// It writes what Seward's bzip2 1.0 reads, one stream of level 9, and takes more care of the last step than that does: for each block it tries every
// number of code tables, and refines them until nothing gets smaller. Bytes depend on the input alone. Blocks are sorted by a suffix array
// in linear time, so nothing is slow to pack. The format has no specification by its author; "The bzip2 format" by Joe Tsai describes it.
package bzip2
