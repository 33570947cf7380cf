package demo

import (
	"context"
	"io"
	"net/http"
	"time"
)

// A gap measures for how long a service does not answer: from its last answer to the first one behind the silence.
type gap struct {
	stop    context.CancelFunc
	longest chan time.Duration
}

// watch asks url ten times a second, until end.
func watch(ctx context.Context, url string) *gap {
	ctx, cancel := context.WithCancel(ctx)
	g := &gap{cancel, make(chan time.Duration, 1)}
	go func() {
		var longest time.Duration
		last := time.Now()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if answers(ctx, url) {
				longest = max(longest, time.Since(last))
				last = time.Now()
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		g.longest <- longest
	}()
	return g
}

// end is the longest silence that was followed by an answer.
func (g *gap) end() time.Duration {
	g.stop()
	return <-g.longest
}

// answers reports whether the service says something within a second. Each time it is asked anew: a connection from before a reboot would
// never end.
func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}
