// Command image-builder makes Proa's images from pinned Debian packages, without root, and looks into them.
//
//	image-builder build --version X.Y.Z    a release's images, bill of materials and reports into out/X.Y.Z
//	image-builder platform IMAGE PLATFORM  tell the machines of a disk image which platform they are on
//	image-builder inspect IMAGE            partitions, slots, boot programs and packages of an image file
//	image-builder diff OLD NEW             what changed between two releases
//	image-builder reproduce                build twice, compare every byte
//	image-builder lock [MANIFEST...]       pin today's packages of the Debian archive
//	image-builder tools                    fetch and unpack the tools tree
//	image-builder completion SHELL         completion for bash, zsh or fish
//	image-builder help [COMMAND]           a manual page for each of these
//
// It is meant to be run in a checkout. Packages, tools and finished stages are kept in $PROA_CACHE, by default proa in the user's cache
// directory. It exits with 0 if all went well, 1 after an error, and 2 where a command says so: differences that were looked for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errChanged), errors.Is(err, errDiffers):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "image-builder:", err)
		os.Exit(1)
	}
}
