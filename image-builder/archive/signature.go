package archive

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Keyring is the set of public keys whose signature under an index counts.
type Keyring struct{ keys openpgp.EntityList }

// ReadKeyring reads every *.gpg file (binary OpenPGP public keys) in the root of dir. None at all is an error.
func ReadKeyring(dir fs.FS) (Keyring, error) {
	names, err := fs.Glob(dir, "*.gpg")
	if err != nil {
		return Keyring{}, fmt.Errorf("read keyring: %w", err)
	}
	var k Keyring
	for _, name := range names {
		b, err := fs.ReadFile(dir, name)
		if err != nil {
			return Keyring{}, fmt.Errorf("read keyring: %w", err)
		}
		keys, err := openpgp.ReadKeyRing(bytes.NewReader(b))
		if err != nil {
			return Keyring{}, fmt.Errorf("read keyring %s: %w", name, err)
		}
		if err := checkStrength(keys); err != nil {
			return Keyring{}, fmt.Errorf("read keyring %s: %w", name, err)
		}
		k.keys = append(k.keys, keys...)
	}
	if len(k.keys) == 0 {
		return Keyring{}, errors.New("read keyring: no *.gpg file in the key directory (--keys)")
	}
	return k, nil
}

const (
	minRSA        = 2048 // bits
	maxSignatures = 16   // of one text; Debian's have up to four
)

// checkStrength refuses keys that can sign and can be broken.
func checkStrength(keys openpgp.EntityList) error {
	for _, e := range keys {
		all := []*packet.PublicKey{e.PrimaryKey}
		for _, s := range e.Subkeys {
			all = append(all, s.PublicKey)
		}
		for _, k := range all {
			bits, err := k.BitLength()
			if err != nil {
				return fmt.Errorf("key %X: %w", k.Fingerprint, err)
			}
			switch k.PubKeyAlgo {
			case packet.PubKeyAlgoDSA:
				return fmt.Errorf("key %X: DSA keys are too weak", k.Fingerprint)
			case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
				if bits < minRSA {
					return fmt.Errorf("key %X: an RSA key of %d bits is too weak, expected %d or more", k.Fingerprint, bits, minRSA)
				}
			}
		}
	}
	return nil
}

// verifyClearsigned returns the signed text of a message in OpenPGP's cleartext signature framework (RFC 9580, 7).
// Text in front of or behind the signed part is refused, since readers disagree about what to do with it.
func verifyClearsigned(b []byte, keys Keyring, now time.Time) (text []byte, signer string, err error) {
	if !bytes.HasPrefix(b, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return nil, "", fmt.Errorf("expected a signed text, found %.40q", b)
	}
	block, rest := clearsign.Decode(b)
	if block == nil {
		return nil, "", errors.New("the signed text is cut off or malformed")
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, "", errors.New("there is text behind the signature")
	}
	entity, err := verifyAny(block.Bytes, block.ArmoredSignature.Body, keys, now)
	if err != nil {
		return nil, "", err
	}
	if id := entity.PrimaryIdentity(); id != nil {
		signer = id.Name
	}
	return block.Plaintext, signer, nil
}

// verifyAny returns the owner of the first good signature. Others beside it do not matter: an archive signs with its old key and
// its new one for a while, and this keyring may have either. If none is good, the error is about the one of a known key.
func verifyAny(signed []byte, signatures io.Reader, keys Keyring, now time.Time) (*openpgp.Entity, error) {
	var reason error
	packets := packet.NewOpaqueReader(signatures)
	for n := 0; ; n++ {
		p, err := packets.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("bad signature: %w", err)
		}
		if n == maxSignatures {
			return nil, fmt.Errorf("bad signature: there are more than %d signatures", maxSignatures)
		}
		entity, err := verifyOne(signed, p, keys, now)
		if err == nil {
			return entity, nil
		}
		if !errors.Is(err, pgperrors.ErrUnknownIssuer) && reason == nil {
			reason = err
		}
	}
	switch {
	case reason == nil:
		return nil, errors.New("it is not signed by any key of the keyring (--keys): add the archive's current key if it has changed")
	case errors.Is(reason, pgperrors.ErrSignatureExpired), errors.Is(reason, pgperrors.ErrKeyExpired):
		return nil, fmt.Errorf("%w at %s, which is now by this host's clock: set the clock if it is wrong", reason, now.UTC().Format(time.RFC3339))
	default:
		return nil, fmt.Errorf("bad signature: %w", reason)
	}
}

// verifyOne checks one signature packet: by a key that may sign and is neither revoked nor expired now, not expired itself, and with
// a hash that still holds.
func verifyOne(signed []byte, p *packet.OpaquePacket, keys Keyring, now time.Time) (*openpgp.Entity, error) {
	parsed, err := p.Parse()
	if err != nil {
		return nil, err
	}
	sig, ok := parsed.(*packet.Signature)
	if !ok {
		return nil, fmt.Errorf("expected a signature, found a packet of type %d", p.Tag)
	}
	strong := []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512}
	if !slices.Contains(strong, sig.Hash) {
		return nil, fmt.Errorf("its hash %s is too weak", sig.Hash)
	}
	var packed bytes.Buffer
	if err := p.Serialize(&packed); err != nil {
		return nil, err
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	return openpgp.CheckDetachedSignature(keys.keys, bytes.NewReader(signed), &packed, config)
}
