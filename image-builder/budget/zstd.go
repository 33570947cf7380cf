package budget

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/tooltree"
)

// A Memory keeps sizes of compressed images by the sum of what was compressed: level 19 takes minutes. Its directory is made as
// needed and may be removed at any time.
type Memory struct{ Dir string }

func (m Memory) file(sum digest.SHA256) string { return filepath.Join(m.Dir, sum.String()+".zstd-19") }

// Zstd returns what was measured before.
func (m Memory) Zstd(sum digest.SHA256) (size int64, ok bool) {
	b, err := os.ReadFile(m.file(sum))
	if err != nil {
		return 0, false
	}
	size, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return size, err == nil && size > 0
}

// Measure returns how many bytes `zstd -19` makes of the file called name, which has that sum; it measures once.
func (m Memory) Measure(ctx context.Context, tools *tooltree.Tree, name string, sum digest.SHA256) (int64, error) {
	if size, ok := m.Zstd(sum); ok {
		return size, nil
	}
	size, err := compress(ctx, tools, name)
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", name, err)
	}
	if err := os.MkdirAll(m.Dir, 0o755); err != nil {
		return 0, err
	}
	temporary := fmt.Sprintf("%s.%d", m.file(sum), os.Getpid())
	if err := os.WriteFile(temporary, fmt.Appendln(nil, size), 0o644); err != nil {
		return 0, err
	}
	if err := os.Rename(temporary, m.file(sum)); err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	return size, nil
}

// compress counts what comes out; the number of threads does not change it.
func compress(ctx context.Context, tools *tooltree.Tree, name string) (int64, error) {
	cmd := tools.Command(ctx, "zstd", "-19", "-T0", "-q", "-c", "--", name)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	size, err := io.Copy(io.Discard, out)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return 0, fmt.Errorf("zstd: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return size, nil
}
