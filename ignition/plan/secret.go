package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/secret"
)

// badField is what may not be in a field of passwd(5) or its relatives.
const badField = ":\n\r\x00"

// checkSecret is checkFields for a value that may be encrypted.
func (b *builder) checkSecret(at base, value string) {
	if !secret.Armored(value) {
		b.checkFields(at, value)
		return
	}
	if err := secret.Check([]byte(value)); err != nil {
		b.issues = append(b.issues, config.Issue{Place: at.place, Problem: "damaged secret: " + err.Error(), Expected: "what age has encrypted", Next: "encrypt the value again: ignition secret encrypt, or age -a -r"})
	}
}

// Reveal opens the encrypted values of accounts, and holds what was in them against the rules for values that are not encrypted. The
// secrets that contents of files are, are opened when they are fetched.
func Reveal(ops []Op, open func(sealed []byte) ([]byte, error)) ([]Op, error) {
	reveal := func(op Op, value, forbidden string) (string, error) {
		plain, err := open([]byte(value))
		if err == nil && strings.ContainsAny(strings.TrimRight(string(plain), "\r\n"), forbidden) {
			err = fmt.Errorf("open a secret: expected one line without %q, found something else", strings.Trim(forbidden, "\n\r\x00"))
		}
		if err != nil {
			return "", config.Issues{{Place: op.At(), Problem: op.String() + ": " + err.Error(),
				Next: "give the machine its key, or encrypt the value again for the key that it has"}}
		}
		return strings.TrimRight(string(plain), "\r\n"), nil
	}
	out := slices.Clone(ops)
	for n, op := range out {
		var err error
		switch op := op.(type) {
		case User:
			if hash := op.PasswordHash; hash != nil && secret.Armored(*hash) {
				text := ""
				text, err = reveal(op, *hash, badField)
				op.PasswordHash = &text
				out[n] = op
			}
		case Group:
			if hash := op.PasswordHash; hash != nil && secret.Armored(*hash) {
				text := ""
				text, err = reveal(op, *hash, badField)
				op.PasswordHash = &text
				out[n] = op
			}
		case Keys:
			op.Keys = slices.Clone(op.Keys)
			for k, key := range op.Keys {
				if err == nil && secret.Armored(key) {
					op.Keys[k], err = reveal(op, key, "\n\r\x00")
				}
			}
			out[n] = op
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
