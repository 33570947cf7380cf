package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/update-engine/state"
)

// A Client talks to the update agent, which the bus starts if it does not run.
type Client struct{ conn *dbus.Conn }

// NewClient uses a connection to the system bus.
func NewClient(conn *dbus.Conn) *Client { return &Client{conn} }

// Check looks for a newer release.
func (c *Client) Check(ctx context.Context) (*state.Result, error) { return c.result(ctx, "Check") }

// Apply installs what the channel offers; progress, if not nil, is told how it goes.
func (c *Client) Apply(ctx context.Context, reboot bool, progress func(stage string, done, total uint64)) (*state.Result, error) {
	if progress != nil {
		stop, err := c.listen(progress)
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	return c.result(ctx, "Apply", reboot)
}

// Auto does what the timer is for.
func (c *Client) Auto(ctx context.Context) (*state.Result, error) { return c.result(ctx, "Auto") }

// Rollback makes the release in the other slot what boots next and stays.
func (c *Client) Rollback(ctx context.Context, version, reason string, reboot bool) (*state.Result, error) {
	return c.result(ctx, "Rollback", version, reason, reboot)
}

// Order asks for one of Resume, Unhold, Unpin.
func (c *Client) Order(ctx context.Context, method, reason string) (*state.Result, error) {
	return c.result(ctx, method, reason)
}

// Hold keeps every release away, until then if it is not zero.
func (c *Client) Hold(ctx context.Context, until time.Time, reason string) (*state.Result, error) {
	seconds := uint64(0)
	if !until.IsZero() {
		seconds = uint64(max(until.Unix(), 1))
	}
	return c.result(ctx, "Hold", seconds, reason)
}

// OrderVersion asks for one of Pin, ClearQuarantine.
func (c *Client) OrderVersion(ctx context.Context, method, version, reason string) (*state.Result, error) {
	return c.result(ctx, method, version, reason)
}

// Metrics asks for the numbers.
func (c *Client) Metrics(ctx context.Context) (string, error) { return c.text(ctx, "Metrics") }

func (c *Client) result(ctx context.Context, method string, args ...any) (*state.Result, error) {
	var r state.Result
	return &r, c.call(ctx, &r, method, args...)
}

// Status asks what runs, what happens, and why.
func (c *Client) Status(ctx context.Context) (*state.Report, error) {
	var r state.Report
	return &r, c.call(ctx, &r, "Status")
}

// History asks what became of releases, oldest first.
func (c *Client) History(ctx context.Context) ([]state.Entry, error) {
	var h []state.Entry
	err := c.call(ctx, &h, "History")
	return h, err
}

func (c *Client) call(ctx context.Context, result any, method string, args ...any) error {
	text, err := c.text(ctx, method, args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), result); err != nil {
		return fmt.Errorf("read the update agent's answer: %w", err)
	}
	return nil
}

func (c *Client) text(ctx context.Context, method string, args ...any) (text string, err error) {
	err = c.conn.Object(Name, Path).CallWithContext(ctx, Interface+"."+method, 0, args...).Store(&text)
	if err != nil {
		return "", explain(err)
	}
	return text, nil
}

// explain gives the agent's own sentence, or says what is wrong with the bus.
func explain(err error) error {
	var e dbus.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("talk to the update agent: %w", err)
	}
	switch e.Name {
	case errBusy:
		return state.Busy{}
	case errFailed:
		return errors.New(e.Error())
	case errDenied:
		return fmt.Errorf("%s: run it as root", e.Error())
	}
	return fmt.Errorf("talk to the update agent: %s: %s; see journalctl -u update-engine", e.Name, e.Error())
}

func (c *Client) listen(progress func(string, uint64, uint64)) (stop func(), err error) {
	match := []dbus.MatchOption{dbus.WithMatchObjectPath(Path), dbus.WithMatchInterface(Interface), dbus.WithMatchMember("Progress")}
	if err := c.conn.AddMatchSignal(match...); err != nil {
		return nil, fmt.Errorf("listen to the update agent: %w", err)
	}
	signals, done := make(chan *dbus.Signal, 64), make(chan struct{})
	c.conn.Signal(signals)
	go func() {
		defer close(done)
		for s := range signals {
			var stage string
			var n, total uint64
			if s.Name == Interface+".Progress" && dbus.Store(s.Body, &stage, &n, &total) == nil {
				progress(stage, n, total)
			}
		}
	}()
	return func() {
		c.conn.RemoveSignal(signals)
		close(signals)
		<-done
		_ = c.conn.RemoveMatchSignal(match...)
	}, nil
}
