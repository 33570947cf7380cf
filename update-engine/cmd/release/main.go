// Command release is the release desk: it makes and maintains the signed repository from which machines update.
//
//	release keys new --role ROLE --out DIR         make keys for a role
//	release init --repo DIR --keys DIR             make an empty repository
//	release stage --repo DIR BUILD                 take a build into the repository
//	release delta --repo DIR                       make deltas to a release from those before it
//	release sign --repo DIR --keys DIR             look at what is staged, and sign it
//	release publish --repo DIR --keys DIR          make what is staged current
//	release plan --repo DIR --keys DIR --channel C say which release a channel gets, and when
//	release refresh --repo DIR --keys DIR          renew what expires soon, with the online keys
//	release push --repo DIR oci://REGISTRY/NAME:TAG copy the repository to a container registry
//	release rotate --repo DIR --role ROLE          change the keys or the threshold of a role
//	release renew --repo DIR                       stage offline metadata anew before it expires
//	release discard --repo DIR                     throw away what is staged
//	release status --repo DIR                      show roles, channels and releases
//	release verify --repo DIR|URL                  check everything in a repository
//	release completion SHELL                       completion for bash, zsh or fish
//	release help [COMMAND]                         a manual page for each of these
//
// --json prints the result as JSON, --quiet no progress, --dry-run what would be written. Exit code 0 means done, 1 an error, 2 a wrong
// command line, 3 that verify found something, 4 that signatures are missing.
//
// The keys of roles root and targets belong offline; snapshot, timestamp and plan are online. docs/releasing.md has the steps.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/proa-os/proa/update-engine/desk"
)

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // A tenth less CPU time for a delta; a desk has the 600 MB that it takes then.
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := desk.Run(ctx, desk.Streams{Out: os.Stdout, Err: os.Stderr, Now: time.Now}, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(desk.ExitCode(err))
	}
}
