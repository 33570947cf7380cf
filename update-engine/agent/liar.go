package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/state"
)

// take installs one payload. If what came is not what was signed, the servers are asked one after the other, each alone, so that it is
// known who lies: each goes on behind the last segment that was right. A server that cannot be reached meanwhile proves nothing.
func (a *Agent) take(ctx context.Context, i *install.Installer, folder BootFolder, o *offer, w way, m *state.Machine) error {
	from, err := a.takeFrom(ctx, i, folder, o, w, "")
	if !wrongBytes(err) {
		return err
	}
	servers := a.Client.Servers(w.URL)
	if len(from) == 1 {
		a.blame(m, o, w, from[0], err)
		servers = slices.DeleteFunc(servers, func(s string) bool { return s == from[0] })
		from = nil
	}
	for _, s := range servers {
		_, next := a.takeFrom(ctx, i, folder, o, w, s)
		from = slices.DeleteFunc(from, func(f string) bool { return f == s }) // who may have lied at first, and was not asked yet
		if next == nil && len(from) == 1 {
			a.blame(m, o, w, from[0], err)
		}
		switch {
		case next == nil || ctx.Err() != nil || errors.As(next, new(*install.DiskError)) || errors.As(next, new(*install.BadRelease)):
			return next
		case wrongBytes(next):
			a.blame(m, o, w, s, next)
		default:
			err = fmt.Errorf("%w (and from %s: %v)", err, s, next) // in words only: it is not the network that fails
		}
	}
	if errors.Is(err, payload.ErrDamaged) {
		err = fmt.Errorf("%w: no server gave what was signed: ask another (mirrors in the configuration); release verify --repo URL says what is wrong with one", err)
	}
	return err
}

// wrongBytes reports whether an error is about what a server has sent. A payload for a newer reader may be one, or a genuine one.
func wrongBytes(err error) bool {
	return errors.Is(err, payload.ErrDamaged) || errors.Is(err, payload.ErrUnsupported)
}

// blame tells the journal, and whoever asks why, that a server has sent wrong bytes.
func (a *Agent) blame(m *state.Machine, o *offer, w way, server string, err error) {
	if !errors.Is(err, payload.ErrDamaged) {
		return
	}
	a.Log.Warn("server sent wrong bytes", "server", server, "version", o.release.Version, "payload", w.Name, "error", oneLine(err.Error()))
	m.Liars = append(m.Liars, state.Liar{Time: a.Now().UTC(), Server: server, Payload: w.String(), Version: o.release.Version, Error: oneLine(err.Error())})
	a.remember(a.Store.SetMachine(*m))
}

// PassedOver tells the journal that a server had no use, though another one had: an update goes on, and nobody would hear of it.
func (a *Agent) PassedOver(server string, err error) {
	a.Log.Warn("server passed over", "server", server, "error", oneLine(err.Error()))
}
