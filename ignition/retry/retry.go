// Package retry tries again what a network or a server may get over.
//
// It stands below packages platform and source, whose servers may come up after the machine that asks them. The pause between two
// tries doubles from 200 ms to 5 s, as upstream's does; half of each is by chance, so that machines started together do not
// ask together. Unlike upstream, which tries for ever, a total time ends it with the last error.
package retry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
)

type temporary struct{ error }

func (t temporary) Unwrap() error { return t.error }

// Temporary marks err as one that another try may not have.
func Temporary(err error) error { return temporary{err} }

// IsTemporary says whether err, or what it wraps, is marked.
func IsTemporary(err error) bool {
	var t temporary
	return errors.As(err, &t)
}

// Do calls try until it returns nil or an error that is not temporary, or until total, if it is not 0, or ctx is over. try's context ends
// with them.
func Do(ctx context.Context, total time.Duration, try func(context.Context) error) error {
	limited, cancel := ctx, context.CancelFunc(func() {})
	if total > 0 {
		limited, cancel = context.WithTimeout(ctx, total)
	}
	defer cancel()
	var before error
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := try(limited)
		if !IsTemporary(err) {
			return err
		}
		if before != nil && errors.Is(err, limited.Err()) {
			err = before // cut short, a try says less than the one before
		}
		before = err
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("gave up: %w", err)
			}
			return fmt.Errorf("gave up after %s: %w", total, err)
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		}
	}
}
