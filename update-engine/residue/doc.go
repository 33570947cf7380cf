// Package residue packs what is left of a new program when the old one is subtracted: the diff streams of payloads.
//
//	bytes of the source, and where they are ─▶ model ─▶ probability of the next bit ─▶ arithmetic coder ─▶ packed
//
// The differences between two builds of a program are nearly all in operands that hold the distance to another place. Two distances to
// the same place change alike, and those to a place nearby do, too. Whoever unpacks a stream has the old bytes before him, so the model
// looks into them: for each byte that may be the first of a 32-bit little-endian operand it computes which address that leads to, and looks
// up how far what is there has moved the last time. On an architecture without such operands the predictions are wrong, are not believed, and cost
// little. A general compressor sees none of this, and needs three times as many bytes.
//
// # The stream
//
// All numbers are integers; the same stream unpacks to the same bytes everywhere. Differences are counted modulo 256, addresses and
// words modulo 2^32. The differences are coded in blocks of 16, the last one may be shorter:
//
//	one bit: is any difference of the block not zero? Under the eight answers before.
//	if so, per difference one bit: is it not zero? and then, if it is not, its eight bits from the highest on
//
// An operand begins with a difference that is not zero where no other operand is, and has four bytes. Its place is the source address
// of its first byte, its move the shift there (source address less address in the output), and its word the four old bytes from there on,
// those behind the end being zero. It leads to place + 4 + word. When its fourth byte is known, a table is told by how much it has changed, less the move:
// that is how far the target has moved. There are two such tables, by the address the operand leads to, and by that divided by 4096, of 65536
// and 4096 entries. An entry has a key, a value and a count: the same value again is counted, up to 255; another one takes from the count and
// replaces the entry when nothing is left; another key replaces it at once. Entries are found by the highest bits of key * 0x9e3779b1.
//
// Before each difference both tables are asked about the operand it is in, or, if it is in none, the one that begins there: the value plus
// the move is how much the word changes, if that agrees with the differences of the operand that are known. The difference that
// follows from it is the guess of the table, its trust is the count, at most 3, plus 1; without a guess both are zero.
//
// Every bit but that of a block has six contexts (flagContexts, valueContexts in the source), each of which names one of 65536 adaptive
// probabilities of 22 bits, 131072 of those of values. The six are joined in the logistic domain by weights, of which there is a set for
// every place in an operand and every combination of guesses: as in Mahoney's lpaq ("Adaptive Weighing of Context Models for Lossless Data
// Compression", 2005). The joined probability has 12 bits, and is the coder's: a 32-bit carryless range, high byte out first, as there.
// After the last block come the four bytes of the lower bound.
//
// Decode reads behind the end of the packed bytes as if zeros were there, and cannot tell damage: whoever calls it compares a hash.
package residue
