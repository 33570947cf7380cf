package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/ignition/clevis"
	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/jose"
	"github.com/proa-os/proa/ignition/pin"
	"github.com/proa-os/proa/ignition/tpm"
	"github.com/proa-os/proa/ignition/volume"
	"github.com/proa-os/proa/internal/command"
)

func (p *program) clevisCommand() command.Command {
	return command.Command{Name: "clevis", Args: "encrypt PIN CONFIG|decrypt|bind DEVICE PIN CONFIG|list DEVICE|open DEVICE NAME", Min: 1, Max: 4,
		Short: "lock secrets and volumes by servers and the TPM", Setup: p.clevis, Words: []string{"encrypt", "decrypt", "bind", "list", "open"},
		Long: `Locks a secret from standard input, and opens a lock, in the formats of Debian's clevis. "bind" gives a volume of LUKS2 a further key that is locked so, and "list" shows them; standard input is a key that the volume has. "open" opens it. At boot clevis@NAME.service does that for volumes of /etc/crypttab whose key file is /run/clevis/NAME.sock.

PIN is tang, CONFIG {"url": "http://HOST", "thp": "THUMBPRINT"}, and "adv" with the server's advertisement to bind without asking it; tpm2, {}; or sss, {"t": 2, "pins": {"tang": [{...}, {...}], "tpm2": {}}}: any two of these.`,
		Examples: []string{`ignition clevis bind /dev/vdb1 tang '{"url": "http://tang", "thp": "..."}' < key`, "ignition clevis list /dev/vdb1"}}
}

// clevisCommands are the words behind it, and how many others each takes. The last two are the unit's.
var clevisCommands = map[string]int{"encrypt": 2, "decrypt": 0, "bind": 3, "list": 1, "open": 2, "prepare": 1, "answer": 1}

func (p *program) clevis(*flag.FlagSet) func(context.Context, []string) error {
	cryptsetup := volume.Cryptsetup(volume.Program)
	return func(ctx context.Context, args []string) error {
		name, args := args[0], args[1:]
		if want, ok := clevisCommands[name]; !ok || len(args) != want {
			return command.Wrong("clevis: expected one of: encrypt PIN CONFIG, decrypt, bind DEVICE PIN CONFIG, list DEVICE, open DEVICE NAME")
		}
		switch name {
		case "encrypt":
			return p.clevisEncrypt(ctx, args[0], args[1])
		case "decrypt":
			return p.clevisDecrypt(ctx)
		case "bind":
			secret, err := p.input()
			if err != nil {
				return err
			}
			lock, err := pin.Parse(args[1], args[2])
			if err != nil {
				return err
			}
			return cryptsetup.Bind(ctx, clevis.ThisMachine(), args[0], lock, secret)
		case "list":
			return p.clevisList(ctx, cryptsetup, args[0])
		case "open":
			return cryptsetup.Open(ctx, clevis.ThisMachine(), args[0], args[1])
		case "prepare":
			device, err := volume.Device("/etc/crypttab", args[0])
			if err != nil {
				return err
			}
			return cryptsetup.Prepare(ctx, device, p.getenv("RUNTIME_DIRECTORY"))
		}
		return p.clevisAnswer(ctx, args[0])
	}
}

// input is what a secret, a lock or a key may be.
func (p *program) input() ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(p.stdin, config.MaxSize+1))
	if err == nil && len(b) > config.MaxSize {
		err = fmt.Errorf("read standard input: expected at most %d bytes, found more", config.MaxSize)
	}
	return b, err
}

func (p *program) clevisEncrypt(ctx context.Context, name, config string) error {
	lock, err := pin.Parse(name, config)
	if err != nil {
		return err
	}
	secret, err := p.input()
	if err != nil {
		return err
	}
	sealed, err := clevis.ThisMachine().Lock(ctx, lock, secret)
	if err != nil {
		return err
	}
	_, err = io.WriteString(p.stdout, sealed.String())
	return err
}

func (p *program) clevisDecrypt(ctx context.Context) error {
	b, err := p.input()
	if err != nil {
		return err
	}
	sealed, err := jose.ParseSealed(string(b))
	if err != nil {
		return err
	}
	secret, err := clevis.ThisMachine().Open(ctx, sealed)
	if err != nil {
		return err
	}
	_, err = p.stdout.Write(secret)
	return err
}

func (p *program) clevisList(ctx context.Context, cryptsetup volume.Cryptsetup, device string) error {
	locks, err := cryptsetup.Locks(ctx, device)
	if err != nil {
		return err
	}
	for _, t := range locks {
		if _, err := fmt.Fprintf(p.stdout, "token %s, key slot %s: %s\n", t.ID, strings.Join(t.Slots, ", "), clevis.Describe(t.Lock)); err != nil {
			return err
		}
	}
	return nil
}

// clevisAnswer works with what systemd passes: the socket, and the TPM if the machine has one (OpenFile= in clevis@.service).
func (p *program) clevisAnswer(ctx context.Context, seconds string) error {
	n, err := strconv.Atoi(seconds)
	if err != nil || n < 1 {
		return command.Wrong("clevis answer: expected a number of seconds, found %q", seconds)
	}
	socket, locker := -1, new(clevis.Locker)
	for n, name := range strings.Split(p.getenv("LISTEN_FDNAMES"), ":") {
		const first = 3 // sd_listen_fds(3)
		switch name {
		case "tpm":
			locker.TPM = tpm.Device{ReadWriter: os.NewFile(uintptr(first+n), name)}
		case "ask":
			socket = first + n
		}
	}
	if socket < 0 {
		return errors.New("systemd has passed no socket: start clevis@NAME.socket")
	}
	return volume.Answer(ctx, socket, locker, p.getenv("RUNTIME_DIRECTORY"), time.Duration(n)*time.Second, p.Log)
}
