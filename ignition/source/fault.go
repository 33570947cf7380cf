package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/retry"
)

// A HashError says that a resource is not the one the config means.
type HashError struct{ Want, Got string }

func (e *HashError) Error() string {
	return fmt.Sprintf("verify: expected hash %s, found %s", e.Want, e.Got)
}

// Fault is the error in its parts.
func (e *HashError) Fault() config.Issue {
	return config.Issue{Problem: "wrong hash", Expected: e.Want, Found: e.Got, Next: "correct the hash, or what the source serves"}
}

// A StatusError is an answer of a server that brings no resource.
type StatusError struct{ Code int }

// Error does without the server's own words: they end up on the machine's consoles.
func (e *StatusError) Error() string {
	f := e.Fault()
	return "expected " + f.Expected + ", found " + f.Found
}

// Fault is the error in its parts.
func (e *StatusError) Fault() config.Issue {
	return config.Issue{
		Problem: "refused by the server", Expected: "status 200", Found: fmt.Sprintf("%d %s", e.Code, http.StatusText(e.Code)),
		Next: "correct the address, or make the server answer it with what it names",
	}
}

// A silence is a server that gives no answer, or not the whole.
type silence struct {
	host string
	error
}

// NoAnswer is what a network has done to a question that was for host.
func NoAnswer(host string, err error) error { return &silence{host, err} }

func (e *silence) Unwrap() error { return e.error }

// Fault is the error in its parts.
func (e *silence) Fault() config.Issue {
	i := config.Issue{Problem: "no answer", Expected: "an answer from " + e.host, Found: e.Error(), Next: "check the address, the server and the network"}
	if errors.Is(e.error, context.DeadlineExceeded) {
		i.Found = "none in time"
	}
	return i
}

// faulty is err, which a try for u ended with, with a Fault if the network is what may get over it.
func faulty(u *url.URL, err error) error {
	var f config.Fault
	if !retry.IsTemporary(err) || errors.As(err, &f) {
		return err
	}
	host := u.Host
	switch u.Scheme {
	case "gs":
		host = "storage.googleapis.com"
	case "s3", "arn":
		host = "S3"
	}
	return retry.Temporary(NoAnswer(host, err))
}
