package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/keyring"
	"github.com/proa-os/proa/ignition/secret"
	"github.com/proa-os/proa/internal/command"
)

func (p *program) secretCommand() command.Command {
	return command.Command{Name: "secret", Args: "key|encrypt", Min: 1, Max: 1, Short: "encrypt values of a config for a machine", Setup: p.secret, Words: []string{"key", "encrypt"},
		Long: `"secret key" prints what this machine's secrets are encrypted for; as root, on the machine. "secret encrypt" reads a value from standard input and prints it encrypted, for a config; anywhere. Files of age (age -a -r RECIPIENT) are the same.

A machine's key is the system credential ignition.age-key, or /var/lib/proa/machine-key.cred, which --create makes and seals with the TPM, if there is one.`,
		Examples: []string{"ignition secret key --create", "mkpasswd -m yescrypt | ignition secret encrypt --to age1..."}}
}

func (p *program) secret(flags *flag.FlagSet) func(context.Context, []string) error {
	create := flags.Bool("create", false, "make a key for this machine, unless it has one")
	var to []string
	flags.Func("to", "encrypt for the `recipient` age1...; several may be given", func(recipient string) error {
		to = append(to, recipient)
		return nil
	})
	return func(ctx context.Context, args []string) error {
		switch {
		case args[0] == "key":
			return p.printKeys(ctx, *create)
		case args[0] == "encrypt" && len(to) > 0:
			plain, err := io.ReadAll(io.LimitReader(p.stdin, config.MaxSize+1))
			if err != nil {
				return err
			}
			if len(plain) > config.MaxSize {
				return fmt.Errorf("encrypt: expected at most %d bytes, found more", config.MaxSize)
			}
			text, err := secret.Encrypt(plain, to...)
			if err != nil {
				return err
			}
			_, err = io.WriteString(p.stdout, text)
			return err
		case args[0] == "encrypt":
			return command.Wrong("secret encrypt: expected --to with the recipient of the machine: ignition secret key prints it there")
		}
		return command.Wrong("secret: expected key or encrypt, found %q", args[0])
	}
}

func (p *program) printKeys(ctx context.Context, create bool) error {
	ring := keyring.ThisMachine()
	if create {
		if _, err := ring.Create(ctx); err != nil {
			return err
		}
	}
	keys, err := ring.Keys(ctx)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return errors.New("this machine has no key; next step: ignition secret key --create")
	}
	for _, k := range keys {
		if _, err := fmt.Fprintln(p.stdout, k.Recipient()); err != nil {
			return err
		}
	}
	return nil
}

// keyFlag registers --key: secrets are opened with the key in that file.
func (p *program) keyFlag(flags *flag.FlagSet) {
	flags.Func("key", "`file` with the identity of age that opens the secrets of the config", func(name string) error {
		b, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read key: %w", err)
		}
		k, err := secret.ParseKey(string(b))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		p.Fetcher.Secrets = func(_ context.Context, sealed []byte) ([]byte, error) { return k.Decrypt(sealed) }
		return nil
	})
}
