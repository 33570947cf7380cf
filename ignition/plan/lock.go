package plan

import (
	"encoding/json"
	"fmt"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/pin"
)

// A Lock is what opens a volume at boot in the place of a key.
type Lock struct {
	Pin     pin.Pin
	Network bool // opening it needs the network
}

// lock reads clevis of a volume, and refuses what could not be opened at the next boot. A volume of the TPM alone is systemd's, whose token opens it
// without anything of ours.
func (b *builder) lock(n int, l types.Luks) *Lock {
	if util.IsTrue(l.Cex.Enabled) {
		b.refuse(b.at("storage.luks[%d].cex", n), "cex is not supported: it is for s390x", `"clevis" with "tang" or "tpm2", or "keyFile" with the key`, "cex")
	}
	c := l.Clevis
	if util.NotEmpty(c.Custom.Pin) {
		p, err := pin.Parse(*c.Custom.Pin, str(c.Custom.Config))
		if err != nil {
			b.refuse(b.at("storage.luks[%d].clevis.custom", n), err.Error(), `a pin "tang", "tpm2" or "sss" with a config as clevis has it`, fmt.Sprintf("%.40q", *c.Custom.Pin))
			return nil
		}
		return &Lock{p, p.AsksServers() || util.IsTrue(c.Custom.NeedsNetwork)}
	}
	pins := map[string][]any{}
	for k, t := range c.Tang {
		one := pin.Tang{URL: t.URL, Thumbprint: str(t.Thumbprint)}
		at := b.at("storage.luks[%d].clevis.tang[%d]", n, k)
		if a := str(t.Advertisement); a != "" { // JSON, says the specification's own check
			one.Advertisement = json.RawMessage(a)
		}
		if err := one.Check(); err != nil {
			b.refuse(at, "cannot ask this tang server", err.Error(), fmt.Sprintf("%.80q", t.URL))
			return nil
		}
		pins[pin.NameTang] = append(pins[pin.NameTang], one)
	}
	if util.IsTrue(c.Tpm2) {
		pins[pin.NameTPM2] = []any{pin.TPM2{}}
	}
	threshold := 1
	if c.Threshold != nil && *c.Threshold != 0 {
		threshold = *c.Threshold
	}
	if len(c.Tang) == 0 && threshold == 1 {
		return nil
	}
	config, err := json.Marshal(map[string]any{"t": threshold, "pins": pins})
	if err != nil {
		panic(err) // values of a config
	}
	p, err := pin.Parse(pin.NameSSS, string(config))
	if err != nil {
		b.refuse(b.at("storage.luks[%d].clevis.threshold", n), "the volume could not be opened", err.Error(), fmt.Sprint(threshold))
		return nil
	}
	if len(p.SSS.Pins) == 1 {
		p = p.SSS.Pins[0]
	}
	return &Lock{p, p.AsksServers()}
}
