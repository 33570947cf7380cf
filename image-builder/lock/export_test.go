package lock

import (
	"context"
	"io"
	"time"

	"github.com/proa-os/proa/image-builder/archive"
)

// FetchWithoutPause is Fetch with next to no pause between attempts.
func FetchWithoutPause(ctx context.Context, l *Lock, mirrors archive.Mirrors, cacheDir string, progress io.Writer) error {
	f := &fetcher{mirrors: mirrors, cacheDir: cacheDir, getter: archive.NewGetter(), pause: time.Millisecond}
	return f.fetch(ctx, l, progress)
}

// FetchOne fetches one package without looking at the free space first.
func FetchOne(ctx context.Context, p Package, mirrors archive.Mirrors, cacheDir string) error {
	f := &fetcher{mirrors: mirrors, cacheDir: cacheDir, getter: archive.NewGetter(), pause: time.Millisecond, meter: newMeter(io.Discard, 1, p.Size)}
	defer f.meter.close()
	return f.one(ctx, p)
}
