package jose

import (
	"encoding/json"
	"errors"
	"fmt"
)

// A Signed document is a JWS in one of its JSON forms, its signatures not yet checked.
type Signed struct {
	Payload    []byte // decoded
	encoded    string
	signatures []signature
}

type signature struct {
	Protected string `json:"protected"`
	Signature string `json:"signature"`
}

// maxSignatures is far more than a server has keys.
const maxSignatures = 64

// ParseSigned reads a JWS in general or flattened JSON form (RFC 7515, 7.2).
func ParseSigned(raw []byte) (*Signed, error) {
	var d struct {
		Payload    string      `json:"payload"`
		Signatures []signature `json:"signatures"`
		signature
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("parse signed document: %w", err)
	}
	if d.Signatures == nil {
		d.Signatures = []signature{d.signature}
	}
	if len(d.Signatures) > maxSignatures {
		return nil, fmt.Errorf("parse signed document: expected at most %d signatures, found %d", maxSignatures, len(d.Signatures))
	}
	payload, err := Decode(d.Payload)
	if err != nil {
		return nil, fmt.Errorf("parse signed document: payload: %w", err)
	}
	if len(payload) == 0 {
		return nil, errors.New("parse signed document: it has no payload")
	}
	return &Signed{Payload: payload, encoded: d.Payload, signatures: d.Signatures}, nil
}

// SignedBy reports whether one of the signatures is the key's. A signature with critical parameters is none: there is none that is known here.
func (s *Signed) SignedBy(k Key) bool {
	for _, one := range s.signatures {
		raw, err := Decode(one.Protected)
		if err != nil {
			continue
		}
		var header struct {
			Alg      string          `json:"alg"`
			Critical json.RawMessage `json:"crit"`
		}
		if json.Unmarshal(raw, &header) != nil || header.Critical != nil {
			continue
		}
		sig, err := Decode(one.Signature)
		if err == nil && k.verify(header.Alg, []byte(one.Protected+"."+s.encoded), sig) {
			return true
		}
	}
	return false
}
