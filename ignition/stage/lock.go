package stage

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/clevis"
	"github.com/proa-os/proa/ignition/pin"
	"github.com/proa-os/proa/ignition/retry"
	"github.com/proa-os/proa/ignition/tang"
	"github.com/proa-os/proa/ignition/volume"
)

// locks are what package device needs for volumes that servers and the TPM open. Servers have as long as devices have to appear.
func locks(o Options) (bind func(context.Context, string, pin.Pin, []byte) error, unlock func(context.Context, string, string, ...string) error) {
	cryptsetup, locker, said := volume.Cryptsetup(volume.Program), clevis.ThisMachine(), retrying(o)
	bind = func(ctx context.Context, device string, p pin.Pin, existing []byte) error {
		return patiently(ctx, deviceTimeout, func(err error) { said("bind "+device, err) },
			func(ctx context.Context) error { return cryptsetup.Bind(ctx, locker, device, p, existing) })
	}
	unlock = func(ctx context.Context, device, name string, options ...string) error {
		return patiently(ctx, deviceTimeout, func(err error) { said("open "+device, err) },
			func(ctx context.Context) error { return cryptsetup.Open(ctx, locker, device, name, options...) })
	}
	return bind, unlock
}

// patiently tries again as long as servers do not answer. One that answers that it does not have the key is believed.
func patiently(ctx context.Context, total time.Duration, said func(error), f func(context.Context) error) error {
	return explainLock(retry.Do(ctx, total, func(ctx context.Context) error {
		err := f(ctx)
		var status tang.StatusError
		if errors.As(err, new(*clevis.ServerError)) && !(errors.As(err, &status) && status == http.StatusNotFound) {
			said(err)
			err = retry.Temporary(err)
		}
		return err
	}))
}

// explainLock makes what a server has said something for the screen.
func explainLock(err error) error {
	var server *clevis.ServerError
	switch {
	case errors.As(err, &server):
		return apply.NewProblem("cannot use the tang server "+server.URL, "an answer for key "+server.Thumbprint, server.Err.Error(), "start the server, correct url or thumbprint, or give its advertisement in the config")
	case errors.Is(err, clevis.ErrUntrusted):
		return apply.NewProblem("the tang server is not to be trusted", "an advertisement signed by the key of the config", err.Error(), "correct the thumbprint (tang-show-keys on the server), or look who answers there")
	}
	return err
}
