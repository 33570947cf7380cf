// Command demo tells Proa's story on the terminal: it builds an image, boots it, provisions it, runs a container on it, updates it, and
// lets it come back from three bad releases. Everything is real: firmware, loader, kernel, signatures, registry.
//
//	demo [--out DIR] [--verbose]
//
// It needs no root and nothing but Go and git; packages and tools come into the cache. The machine's files stay in DIR/demo.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/proa-os/proa/qemu-tests/demo"
)

func main() {
	o := demo.Options{Terminal: os.Stdout}
	flag.StringVar(&o.Out, "out", "out", "`directory` of what is built")
	flag.BoolVar(&o.Verbose, "verbose", false, "print the builder's steps and the machine's console, too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demo.Run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}
