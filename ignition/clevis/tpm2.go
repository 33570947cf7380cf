package clevis

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/proa-os/proa/ignition/jose"
	"github.com/proa-os/proa/ignition/pin"
	"github.com/proa-os/proa/ignition/tpm"
)

type tpm2Header struct {
	Hash    string          `json:"hash"`
	Public  string          `json:"jwk_pub"`
	Private string          `json:"jwk_priv"`
	Key     string          `json:"key"`
	PCRs    json.RawMessage `json:"pcr_ids,omitempty"` // which there must not be
}

// symmetric is the key as clevis seals it.
type symmetric struct {
	Alg    string   `json:"alg,omitempty"`
	K      string   `json:"k"`
	KeyOps []string `json:"key_ops,omitempty"`
	Type   string   `json:"kty"`
}

// ThisMachine has the machine's TPM, if there is one.
func ThisMachine() *Locker {
	f, err := tpm.Open()
	if err != nil {
		return new(Locker)
	}
	return &Locker{TPM: tpm.Device{ReadWriter: f}}
}

var errNoTPM = errors.New("pin tpm2: the machine has no TPM (/dev/tpmrm0)")

func (l *Locker) lockTPM(secret []byte) (*jose.Sealed, error) {
	if l.TPM == nil {
		return nil, errNoTPM
	}
	key := make([]byte, jose.KeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	jwk, err := json.Marshal(symmetric{Alg: encryption, K: jose.Encode(key), KeyOps: []string{"encrypt", "decrypt"}, Type: "oct"})
	if err != nil {
		return nil, err
	}
	l.turn.Lock()
	public, private, err := l.TPM.Seal(jwk)
	l.turn.Unlock()
	if err != nil {
		return nil, fmt.Errorf("pin tpm2: %w", err)
	}
	return jose.Seal(header{Alg: "dir", Enc: encryption, Clevis: pinHeader{Pin: pin.NameTPM2,
		TPM2: &tpm2Header{Hash: "sha256", Public: jose.Encode(public), Private: jose.Encode(private), Key: "ecc"}}}, key, secret)
}

func (l *Locker) unseal(t tpm2Header) ([]byte, error) {
	if t.Hash != "sha256" || t.Key != "ecc" || t.PCRs != nil {
		return nil, fmt.Errorf("pin tpm2: expected a key of kind ecc, hash sha256 and no policy of PCRs, found %.20q, %.20q, %.40q", t.Key, t.Hash, t.PCRs)
	}
	if l.TPM == nil {
		return nil, errNoTPM
	}
	public, err1 := jose.Decode(t.Public)
	private, err2 := jose.Decode(t.Private)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("pin tpm2: %w", err)
	}
	l.turn.Lock()
	raw, err := l.TPM.Unseal(public, private)
	l.turn.Unlock()
	if err != nil {
		return nil, fmt.Errorf("pin tpm2: %w", err)
	}
	var jwk symmetric
	if err := json.Unmarshal(raw, &jwk); err != nil || jwk.Type != "oct" {
		return nil, errors.New("pin tpm2: what the TPM has sealed is no key")
	}
	return jose.Decode(jwk.K)
}
