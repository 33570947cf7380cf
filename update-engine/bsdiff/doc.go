// Package bsdiff finds what a new file has of an old one although both were compiled anew: Colin Percival's algorithm ("Naive
// Differences of Executable Code", 2003), without a file format of its own.
//
//	old, new ─▶ suffix array of old ─▶ matches ─▶ Control ─▶ package payload makes the streams, packs and applies them
//
// The new file is described piece by piece, one Control each:
//
//	Add    so many bytes are those of the old file at its current place, plus so many bytes of the diff stream, modulo 256
//	Copy   so many bytes are those of the extra stream
//	Seek   then the old file's place moves by so many bytes, backward if negative
//
// The place begins at 0 and moves by Add, too. Code that has moved differs from the old in its addresses only, so the diff stream
// is nearly all zeros, and packs well. Matches are found in a suffix array
// (package suffix).
//
// The description depends on both files alone. It is always right: on files that have nothing in common it is the new file as extra stream,
// and whether a difference is worth its bytes is for the caller to compare.
package bsdiff
