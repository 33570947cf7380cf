package volume

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/ignition/clevis"
	"github.com/proa-os/proa/ignition/retry"
)

// locksFile is what Prepare leaves in a directory for Answer.
const locksFile = "locks.json"

// Device finds the device of a volume in a crypttab(5).
func Device(crypttab, name string) (string, error) {
	f, err := os.Open(crypttab)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) < 2 || w[0] != name {
			continue
		}
		kind, value, tagged := strings.Cut(w[1], "=")
		dir := map[string]string{"UUID": "by-uuid", "PARTUUID": "by-partuuid", "LABEL": "by-label", "PARTLABEL": "by-partlabel"}[kind]
		switch {
		case !tagged && filepath.IsAbs(w[1]):
			return w[1], nil
		case dir == "":
			return "", fmt.Errorf("%s: volume %s: expected a device UUID=, PARTUUID=, LABEL=, PARTLABEL= or a path, found %q", crypttab, name, w[1])
		}
		return filepath.Join("/dev/disk", dir, strings.Trim(value, `"`)), nil
	}
	return "", fmt.Errorf("%s has no volume %s", crypttab, name)
}

// Prepare reads the locks of a volume into a directory. It needs the device, and nobody's answer.
func (c Cryptsetup) Prepare(ctx context.Context, device, dir string) error {
	locks, err := c.Locks(ctx, device)
	if err != nil {
		return err
	}
	if len(locks) == 0 {
		return fmt.Errorf("%s has no token of type clevis: bind it (clevis bind), or give its line of crypttab another key file", device)
	}
	b, err := json.Marshal(locks)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, locksFile)
	return errors.Join(os.WriteFile(name, b, 0o644), os.Chmod(name, 0o644)) // whoever answers is another user; locks are no secret
}

// Answer gives the key to the first who asks at a listening socket, a descriptor that systemd has passed. It needs the directory that Prepare has filled, and no device. As long as no
// lock opens it tries again, until total is over: then it hangs up, which whoever has asked takes for no key.
func Answer(ctx context.Context, socket int, k *clevis.Locker, dir string, total time.Duration, log *slog.Logger) error {
	c, err := accept(socket)
	if err != nil {
		return fmt.Errorf("wait for who asks for the key: %w", err)
	}
	defer c.Close()
	b, err := os.ReadFile(filepath.Join(dir, locksFile))
	var locks []Token
	if err == nil {
		err = json.Unmarshal(b, &locks)
	}
	if err != nil {
		return fmt.Errorf("read locks, which clevis prepare leaves: %w", err)
	}
	var last string
	var key []byte
	err = retry.Do(ctx, total, func(ctx context.Context) error {
		var err error
		if key, err = First(ctx, k, locks); err == nil {
			return nil
		}
		if text := err.Error(); text != last && ctx.Err() == nil {
			last = text
			log.Warn("no key yet, trying again", "error", err)
		}
		if last != "" && ctx.Err() != nil { // what was found before the time was over says more
			err = errors.New(last)
		}
		return retry.Temporary(err)
	})
	if err != nil {
		return err
	}
	if _, err := c.Write(key); err != nil {
		return fmt.Errorf("give the key to who asks: %w", err)
	}
	return nil
}

// accept takes a connection. It is there already: it has started this program.
func accept(socket int) (*os.File, error) {
	const patience = 10 * time.Second
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(socket), Events: unix.POLLIN}}, int(patience/time.Millisecond))
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("nobody has asked within %s", patience)
	}
	c, _, err := syscall.Accept4(socket, syscall.SOCK_CLOEXEC) // net links it, and not that of unix
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(c), "connection"), nil
}
