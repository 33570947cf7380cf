package device

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/signature"
	"github.com/proa-os/proa/internal/durable"
)

// Where a machine has its keys and the list of its volumes.
const (
	keyDir   = "etc/luks"
	crypttab = "etc/crypttab"
)

// luks makes an encrypted volume of version 2, or reuses one, opens it and writes its line of crypttab(5). With clevis the machine's TPM or servers
// open it, and a key that was made to make it is taken away again.
func (r *run) luks(op plan.Luks) (string, error) {
	key, err := keyOf("luks", op.Luks)
	if err != nil {
		return "", err
	}
	return r.withDevice(*op.Luks.Device, func(d Device) (string, error) {
		found, err := signature.Probe(d, d.Size())
		if err != nil {
			return "", err
		}
		rec, begun := r.known(key, d.Size())
		made := !begun && rec.Result != "" && len(found) == 1 && found[0].String() == rec.Result
		if made || !begun && !util.IsTrue(op.WipeVolume) && len(found) > 0 {
			return r.reuseVolume(op, d, found, made)
		}
		secret, err := r.secret(op)
		if err != nil {
			return "", err
		}
		return r.makeVolume(op, key, d, secret)
	})
}

// reuseVolume opens a volume that is there: one that this provisioning has made, or one that the config describes.
func (r *run) reuseVolume(op plan.Luks, d Device, found []signature.Signature, made bool) (string, error) {
	outcome := "as it was made before"
	if !made {
		outcome = "reuse " + found[0].String()
		if err := reusable(op, found); err != nil {
			return "", err
		}
	}
	by, err := d.Busy(0)
	if err != nil {
		return "", err
	}
	if by != "volume "+op.Name {
		if made && locked(op) {
			err = r.openLocked(op, d)
		} else {
			err = r.openByKey(op, d)
		}
		if err != nil {
			return "", err
		}
	}
	if err := r.listVolume(op, found[0].UUID); err != nil {
		return "", err
	}
	return outcome, r.dropKey(op)
}

// reusable holds what is there against the rules of the specification: it must be a volume that a given key opens.
func reusable(op plan.Luks, found []signature.Signature) error {
	const next = "correct the config, or set \"wipeVolume\": true to lose what is there"
	s := found[0]
	switch {
	case len(found) > 1 || s.Type != "luks2":
		return problem("the device holds something else", "nothing, or an encrypted volume of type luks2", s.String(), next)
	case op.Clevis.IsPresent():
		return problem("cannot reuse an encrypted volume", "a volume without clevis", s.String(), next)
	case util.NilOrEmpty(op.KeyFile.Source):
		return problem("cannot reuse an encrypted volume", "a key file in the config", s.String(), next)
	case op.Label != nil && *op.Label != s.Label:
		return problem("the volume has another label", fmt.Sprintf("%q", *op.Label), fmt.Sprintf("%q", s.Label), next)
	case op.Luks.UUID != nil && !strings.EqualFold(*op.Luks.UUID, s.UUID):
		return problem("the volume has another UUID", strings.ToLower(*op.Luks.UUID), s.UUID, next)
	}
	return nil
}

// secret returns the key: the config's, one that an earlier run has kept, or a new one, which is kept before it is used.
func (r *run) secret(op plan.Luks) ([]byte, error) {
	var b []byte
	kept, err := r.o.Root.ReadFile(keyDir + "/" + op.Name)
	switch {
	case util.NotEmpty(op.KeyFile.Source):
		if b, err = r.fetch(op.KeyFile); err != nil {
			return nil, err
		}
	case err == nil && len(kept) > 0:
		return kept, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	default:
		raw := make([]byte, 2048)
		if _, err := rand.Read(raw); err != nil {
			return nil, err
		}
		b = []byte(hex.EncodeToString(raw))
	}
	if bytes.Equal(b, kept) {
		return b, nil
	}
	if err := r.step("keep key of %s", op.Name); err != nil {
		return nil, err
	}
	if err := r.o.Root.MkdirAll(keyDir, 0o700); err != nil {
		return nil, err
	}
	return b, durable.WriteFile(r.o.Root, keyDir+"/"+op.Name, b, 0o600)
}

// keyLimit is how long a key file may be: cryptsetup(8), --keyfile-size.
const keyLimit = 8 << 20

// sink collects a key.
type sink struct{ key []byte }

func (s *sink) Write(b []byte) (int, error) {
	if len(s.key)+len(b) > keyLimit {
		return 0, errors.New("expected a key file of at most 8 MiB, found more")
	}
	s.key = append(s.key, b...)
	return len(b), nil
}

// Reset forgets it.
func (s *sink) Reset() error {
	s.key = nil
	return nil
}

func (r *run) fetch(res types.Resource) ([]byte, error) {
	var s sink
	if err := r.o.Fetch(r.ctx, res, &s); err != nil {
		return nil, err
	}
	return s.key, nil
}

func (r *run) makeVolume(op plan.Luks, key string, d Device, secret []byte) (string, error) {
	for _, ask := range []func(int) (string, error){d.Busy, own(d)} {
		by, err := ask(0)
		if err != nil {
			return "", err
		}
		if by == "volume "+op.Name { // a run before this one has opened it and come no further
			if err = r.exec(nil, "cryptsetup", "luksClose", op.Name); err != nil {
				return "", err
			}
			continue
		}
		if by != "" {
			return "", problem("refuse to change "+d.Path(), "a device that is not in use", "in use: "+by, "choose another device")
		}
	}
	if err := r.note(key, record{Size: d.Size(), Begun: true}); err != nil {
		return "", err
	}
	if err := r.erase(d, signature.Erase); err != nil {
		return "", err
	}
	args := []string{"luksFormat", "--batch-mode", "--type", "luks2", "--key-file", "-"}
	if util.NotEmpty(op.Label) {
		args = append(args, "--label", *op.Label)
	}
	if util.NotEmpty(op.Luks.UUID) {
		args = append(args, "--uuid", *op.Luks.UUID)
	}
	if op.Lock != nil && util.NilOrEmpty(op.KeyFile.Source) { // the key is random, and goes when the volume is bound
		args = append(args, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
	}
	for _, o := range op.Luks.Options {
		args = append(args, string(o))
	}
	if err := r.exec(secret, "cryptsetup", append(args, d.Path())...); err != nil {
		return "", err
	}
	found, err := signature.Probe(d, d.Size())
	if err != nil {
		return "", err
	}
	if len(found) != 1 || found[0].Type != "luks2" {
		return "", fmt.Errorf("look at what was made on %s: expected an encrypted volume, found %v", d.Path(), found)
	}
	if err := r.openVolume(op, d, secret); err != nil {
		return "", err
	}
	if err := r.lock(op, d, secret); err != nil {
		return "", err
	}
	if err := r.listVolume(op, found[0].UUID); err != nil {
		return "", err
	}
	if err := r.note(key, record{Size: d.Size(), Result: found[0].String()}); err != nil {
		return "", err
	}
	return "made " + found[0].String(), r.dropKey(op)
}

// lock has the volume opened by what the config says, bound to nothing of the TPM but the TPM itself: PCRs change with every update of the
// system. When that is done, a key that was made here is taken away; with the TPM alone, the config's too.
func (r *run) lock(op plan.Luks, d Device, secret []byte) error {
	if op.Lock == nil {
		if !util.IsTrue(op.Clevis.Tpm2) {
			return nil
		}
		return r.exec(secret, "systemd-cryptenroll", "--unlock-key-file=/dev/stdin", "--tpm2-device=auto", "--tpm2-pcrs=", "--wipe-slot=password", d.Path())
	}
	if err := r.step("bind %s", op.Name); err != nil {
		return err
	}
	if err := r.o.Bind(r.ctx, d.Path(), op.Lock.Pin, secret); err != nil {
		return err
	}
	if util.NotEmpty(op.KeyFile.Source) {
		return nil
	}
	return r.exec(secret, "cryptsetup", "luksRemoveKey", "--batch-mode", "--key-file", "-", d.Path())
}

// locked reports whether a volume is opened without a key of the machine.
func locked(op plan.Luks) bool { return op.Lock != nil || util.IsTrue(op.Clevis.Tpm2) }

// openLocked opens a volume that has no key but locked ones.
func (r *run) openLocked(op plan.Luks, d Device) error {
	if op.Lock == nil {
		return r.exec(nil, "systemd-cryptsetup", "attach", op.Name, d.Path(), "-", "tpm2-device=auto")
	}
	if err := r.step("unlock %s", op.Name); err != nil {
		return err
	}
	return r.o.Unlock(r.ctx, d.Path(), op.Name, openOptions(op)...)
}

func (r *run) openByKey(op plan.Luks, d Device) error {
	secret, err := r.secret(op)
	if err != nil {
		return err
	}
	return r.openVolume(op, d, secret)
}

func (r *run) openVolume(op plan.Luks, d Device, secret []byte) error {
	args := append([]string{"luksOpen", "--key-file", "-"}, openOptions(op)...)
	return r.exec(secret, "cryptsetup", append(args, d.Path(), op.Name)...)
}

// openOptions are cryptsetup's for opening a volume.
func openOptions(op plan.Luks) []string {
	options := []string{"--persistent"}
	if util.IsTrue(op.Discard) {
		options = append(options, "--allow-discards")
	}
	for _, o := range op.OpenOptions {
		options = append(options, string(o))
	}
	return options
}

// listVolume writes the line of crypttab(5) that opens the volume at every boot.
func (r *run) listVolume(op plan.Luks, id string) error {
	key, options := "/"+keyDir+"/"+op.Name, "luks"
	if util.IsTrue(op.Discard) {
		options += ",discard"
	}
	switch {
	case op.Lock != nil:
		key = "/run/clevis/" + op.Name + ".sock"
		// Without a person: a boot that waits for a passphrase would wait for ever.
		if options += ",headless=1"; op.Lock.Network {
			options += ",_netdev"
		}
		if err := r.askForKey(op.Name); err != nil {
			return err
		}
	case util.IsTrue(op.Clevis.Tpm2):
		key, options = "-", options+",tpm2-device=auto"
	}
	line := fmt.Sprintf("%s UUID=%s %s %s\n", op.Name, id, key, options)
	old, err := r.o.Root.ReadFile(crypttab)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var text strings.Builder
	for l := range strings.Lines(string(old)) {
		if f := strings.Fields(l); len(f) == 0 || f[0] != op.Name {
			text.WriteString(strings.TrimSuffix(l, "\n") + "\n")
		}
	}
	text.WriteString(line)
	if text.String() == string(old) {
		return nil
	}
	if err := r.step("write /%s", crypttab); err != nil {
		return err
	}
	if err := r.o.Root.MkdirAll("etc", 0o755); err != nil {
		return err
	}
	return durable.WriteFile(r.o.Root, crypttab, []byte(text.String()), 0o644)
}

// asks is a drop-in of the unit that opens a volume whose key clevis@.service gets. Where that ends without a key the boot goes on; it is
// tried again until it succeeds, and then what was waiting for the volume is mounted.
const asks = `[Unit]
Requires=clevis@%[1]s.socket
After=clevis@%[1]s.socket
StartLimitIntervalSec=0

[Service]
Restart=on-failure
RestartSec=10s
RestartSteps=5
RestartMaxDelaySec=5min
ExecStartPost=-systemctl --no-block start remote-fs.target
`

// askForKey writes the drop-in.
func (r *run) askForKey(name string) error {
	escaped := unit.UnitNameEscape(name)
	dir := "etc/systemd/system/systemd-cryptsetup@" + escaped + ".service.d"
	text := fmt.Sprintf(asks, escaped)
	if old, err := r.o.Root.ReadFile(dir + "/clevis.conf"); err == nil && string(old) == text {
		return nil
	}
	if err := r.step("write drop-in of %s", name); err != nil {
		return err
	}
	if err := r.o.Root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return durable.WriteFile(r.o.Root, dir+"/clevis.conf", []byte(text), 0o644)
}

// dropKey forgets the key of a volume that is opened without it.
func (r *run) dropKey(op plan.Luks) error {
	if !locked(op) {
		return nil
	}
	if err := r.step("forget key of %s", op.Name); err != nil {
		return err
	}
	return durable.Remove(r.o.Root, keyDir+"/"+op.Name)
}
