// Package pin says how a secret is locked: the configs of clevis's pins, checked. It calculates nothing and asks nobody, so that plan refuses
// what cannot be before anything is done.
//
// There are three pins. tang needs a server on the network, tpm2 this machine's TPM, and sss any t of others. The forms are those
// of clevis-encrypt-tang(1), clevis-encrypt-tpm2(1) and clevis-encrypt-sss(1). Other pins, and other keys than those below, are refused by name.
package pin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// The names of pins.
const (
	NameTang = "tang"
	NameTPM2 = "tpm2"
	NameSSS  = "sss"
)

// A Pin is one of the three: Tang, TPM2 or SSS is not nil.
type Pin struct {
	Tang *Tang
	TPM2 *TPM2
	SSS  *SSS
}

// Tang is a server.
type Tang struct {
	URL           string          `json:"url"`
	Thumbprint    string          `json:"thp,omitempty"` // of one of its signing keys
	Advertisement json.RawMessage `json:"adv,omitempty"` // an object: what the server would say
}

// TPM2 is the machine's. Its policy is empty: PCRs change with every update of the system.
type TPM2 struct {
	Hash string `json:"hash,omitempty"` // sha256
	Key  string `json:"key,omitempty"`  // ecc
}

// SSS takes any Threshold of Pins.
type SSS struct {
	Threshold int
	Pins      []Pin
}

// MaxPins is the most pins that a lock may have: all of them, with their keys, are in the header of a volume.
const MaxPins = 16

// maxDepth is how far sss may be in sss.
const maxDepth = 4

// Name is the pin's.
func (p Pin) Name() string {
	switch {
	case p.Tang != nil:
		return NameTang
	case p.TPM2 != nil:
		return NameTPM2
	}
	return NameSSS
}

// AsksServers reports whether a server has a part in opening it.
func (p Pin) AsksServers() bool {
	return p.Tang != nil || p.SSS != nil && slices.ContainsFunc(p.SSS.Pins, Pin.AsksServers)
}

// String says what opens: "tang http://HOST", "2 of (tang http://HOST, the TPM)".
func (p Pin) String() string {
	switch {
	case p.Tang != nil:
		return "tang " + p.Tang.URL
	case p.TPM2 != nil:
		return "the TPM"
	}
	var list []string
	for _, one := range p.SSS.Pins {
		list = append(list, one.String())
	}
	return fmt.Sprintf("%d of (%s)", p.SSS.Threshold, strings.Join(list, ", "))
}

// NeedsNetwork reports whether somebody must be asked before something can be locked.
func (p Pin) NeedsNetwork() bool {
	if p.SSS != nil {
		return slices.ContainsFunc(p.SSS.Pins, Pin.NeedsNetwork)
	}
	return p.Tang != nil && p.Tang.Advertisement == nil
}

// Parse reads the config of a pin as clevis has it.
func Parse(name, config string) (Pin, error) {
	return parse(name, []byte(config), 0)
}

func parse(name string, config []byte, depth int) (p Pin, err error) {
	switch name {
	case NameTang:
		p.Tang = new(Tang)
		if err = strict(config, p.Tang); err == nil {
			err = p.Tang.Check()
		}
	case NameTPM2:
		p.TPM2 = new(TPM2)
		if err = strict(config, p.TPM2); err == nil && (p.TPM2.Hash != "" && p.TPM2.Hash != "sha256" || p.TPM2.Key != "" && p.TPM2.Key != "ecc") {
			err = errors.New(`expected "hash": "sha256" and "key": "ecc", or neither`)
		}
	case NameSSS:
		p.SSS, err = parseSSS(config, depth)
	default:
		return p, fmt.Errorf("unknown pin %.20q: expected tang, tpm2 or sss", name)
	}
	if err != nil {
		err = fmt.Errorf("pin %s: %w", name, err)
	}
	return p, err
}

func parseSSS(config []byte, depth int) (*SSS, error) {
	if depth == maxDepth {
		return nil, fmt.Errorf("expected sss within sss at most %d times", maxDepth)
	}
	c := struct {
		T    *int                       `json:"t"`
		Pins map[string]json.RawMessage `json:"pins"`
	}{}
	if err := strict(config, &c); err != nil {
		return nil, err
	}
	s := &SSS{Threshold: 1}
	if c.T != nil {
		s.Threshold = *c.T
	}
	for _, name := range slices.Sorted(maps.Keys(c.Pins)) {
		list := []json.RawMessage{c.Pins[name]}
		if strings.HasPrefix(string(c.Pins[name]), "[") {
			if err := json.Unmarshal(c.Pins[name], &list); err != nil {
				return nil, err
			}
		}
		for _, one := range list {
			p, err := parse(name, one, depth+1)
			if err != nil {
				return nil, err
			}
			s.Pins = append(s.Pins, p)
		}
	}
	return s, s.check()
}

func (s *SSS) check() error {
	if len(s.Pins) > MaxPins {
		return fmt.Errorf("expected at most %d pins, found %d", MaxPins, len(s.Pins))
	}
	if s.Threshold < 1 || s.Threshold > len(s.Pins) {
		return fmt.Errorf("expected a threshold of 1 to the number of pins, which is %d, found %d", len(s.Pins), s.Threshold)
	}
	return nil
}

// Check does not let a server be trusted that nobody has looked at.
func (t *Tang) Check() error {
	u, err := url.Parse(t.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.RawQuery != "" {
		return errors.New("expected an url http://HOST or https://HOST, with or without a port and a path, and nothing else")
	}
	if strings.HasPrefix(string(t.Advertisement), `"`) { // the name of a file
		return errors.New("expected an advertisement as an object, found the name of a file")
	}
	if n := len(t.Thumbprint); n != 27 && n != 43 || strings.Trim(t.Thumbprint, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		if t.Thumbprint == "" && t.Advertisement != nil {
			return nil // whoever wrote the config trusts it
		}
		return fmt.Errorf("expected a thumbprint of 43 characters (as tang-show-keys has it), or 27 of an old server, found %.60q", t.Thumbprint)
	}
	return nil
}

// strict refuses keys that nobody reads.
func strict(config []byte, to any) error {
	if len(bytes.TrimSpace(config)) == 0 || bytes.TrimSpace(config)[0] != '{' {
		return errors.New("expected an object of JSON")
	}
	d := json.NewDecoder(bytes.NewReader(config))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if d.More() {
		return errors.New("expected one object of JSON, found more")
	}
	return nil
}
