package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/ignition/apply"
)

// setHostname makes /etc/hostname the name of this boot: systemd has read the file before there was one.
func setHostname(root *os.Root, log *slog.Logger) error {
	b, err := root.ReadFile("etc/hostname")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name, err := parseHostname(string(b))
	if err != nil || name == "" {
		return err
	}
	if now, err := os.Hostname(); err == nil && now == name {
		return nil
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set hostname %q: %w", name, err)
	}
	log.Info("set hostname", "hostname", name)
	return nil
}

// parseHostname reads hostname(5): comments and empty lines, then one name. A pattern of "?", which systemd fills in
// itself, is left to it.
func parseHostname(text string) (string, error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if strings.Contains(line, "?") {
			return "", nil
		}
		if !validHostname(line) {
			return "", apply.NewProblem("invalid /etc/hostname", "1 to 64 letters, digits, - and ., no label empty",
				fmt.Sprintf("%.80q", line), "correct the contents of /etc/hostname in the config")
		}
		return line, nil
	}
	return "", nil
}

func validHostname(s string) bool {
	if len(s) > 64 { // HOST_NAME_MAX, hostname(7)
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return true
}
