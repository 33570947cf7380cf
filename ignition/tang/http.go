package tang

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Limits of one request. An advertisement of ten keys has 4 KiB.
const (
	maxAnswer  = 256 << 10
	maxHeaders = 16 << 10
	patience   = 10 * time.Second
)

// A StatusError is an answer that is none.
type StatusError int

func (e StatusError) Error() string {
	text := "the server answers " + strconv.Itoa(int(e)) + " " + http.StatusText(int(e))
	if e == http.StatusNotFound {
		text += ": it does not have the key, or the URL is not that of a tang server"
	}
	return text
}

// request is one request on a connection of its own, through no proxy: it would see the answers.
func request(ctx context.Context, method, address string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Close = true
	if body != nil {
		r.Header.Set("Content-Type", "application/jwk+json")
	}
	transport := &http.Transport{MaxResponseHeaderBytes: maxHeaders, DisableCompression: true}
	answer, err := transport.RoundTrip(r) // a client would follow redirections
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(fmt.Errorf("no answer within %s", patience), err)
		}
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, StatusError(answer.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("expected an answer of at most %d bytes, found more", maxAnswer)
	}
	return b, nil
}
