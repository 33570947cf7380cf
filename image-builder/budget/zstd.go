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

// Best is the level of zstd that the budget is about.
const Best = 19

// levels are tried in turn: no level makes an image larger than a lower one does, and 3 takes a second where 19 takes minutes.
func levels() []int { return []int{3, 9, Best} }

// Compressed is what zstd makes of an image at some level: of a level below Best, the bytes are more than Best would leave.
type Compressed struct {
	Size  int64
	Level int
}

// A Memory keeps sizes of compressed images by the sum of what was compressed. Its directory is made as needed and may be removed at any
// time.
type Memory struct{ Dir string }

func (m Memory) file(sum digest.SHA256, level int) string {
	return filepath.Join(m.Dir, fmt.Sprintf("%v.zstd-%d", sum, level))
}

// Within compresses the file called name, which has that sum, harder and harder until it is not above limit bytes; no limit is 0.
func (m Memory) Within(ctx context.Context, tools *tooltree.Tree, name string, sum digest.SHA256, limit int64) (Compressed, error) {
	if size, ok := m.known(sum, Best); ok {
		return Compressed{size, Best}, nil
	}
	var c Compressed
	for _, level := range levels() {
		size, err := m.Measure(ctx, tools, name, sum, level)
		if err != nil {
			return Compressed{}, err
		}
		if c = (Compressed{size, level}); limit <= 0 || size <= limit {
			break
		}
	}
	return c, nil
}

func (m Memory) known(sum digest.SHA256, level int) (size int64, ok bool) {
	b, err := os.ReadFile(m.file(sum, level))
	if err != nil {
		return 0, false
	}
	size, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return size, err == nil && size > 0
}

// Measure returns how many bytes zstd makes of the file called name, which has that sum; it measures once.
func (m Memory) Measure(ctx context.Context, tools *tooltree.Tree, name string, sum digest.SHA256, level int) (int64, error) {
	if size, ok := m.known(sum, level); ok {
		return size, nil
	}
	size, err := compress(ctx, tools, name, level)
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", name, err)
	}
	if err := os.MkdirAll(m.Dir, 0o755); err != nil {
		return 0, err
	}
	file := m.file(sum, level)
	temporary := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(temporary, fmt.Appendln(nil, size), 0o644); err != nil {
		return 0, err
	}
	if err := os.Rename(temporary, file); err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	return size, nil
}

// compress counts what comes out; the number of threads does not change it.
func compress(ctx context.Context, tools *tooltree.Tree, name string, level int) (int64, error) {
	cmd := tools.Command(ctx, "zstd", "-"+strconv.Itoa(level), "-T0", "-q", "-c", "--", name)
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
