// Package stage keeps the results of build stages by the hash of everything that went into them, so that nothing is made twice.
//
// A stage names its inputs in a Key; Make returns the entry under that key, and makes it if it is not there. What goes into a key
// is the stage's affair, with one rule: whatever can change a byte of the result, the builder's own code included (Self).
//
//	stages/<key>/            the files of one entry
//	stages/<key>/entry.json  their names, sizes, sums and identities (Seal)
//	stages/.work-*           an entry that is being made
//
// Invariants. An entry appears whole, by a rename, or not at all. It is compared with its seal before it is used; one that
// differs is removed and made anew, never used. While an Entry is open it is not evicted. Several builds may share a cache: two
// that make the same entry at once both succeed, and one of the two results is kept.
//
// The cache stays below its limit by evicting what was not used for the longest time. It trusts the user's own account and nothing else:
// whoever can write there can already replace the builder.
package stage
