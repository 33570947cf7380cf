// Command update-server serves an update repository over HTTP: static files with ranges and ETags.
//
//	update-server [--listen ADDRESS] REPOSITORY
//
// --listen is 127.0.0.1:8080 by default; with port 0 it takes a free one. The first line on standard output is the URL.
// Any web server does as well; machines trust the signatures, not the server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/proa-os/proa/update-engine/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	listen := flag.String("listen", "127.0.0.1:8080", "address to listen on")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: update-server [--listen ADDRESS] REPOSITORY\n\nServes the repository that release makes.")
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	err := serve(ctx, *listen, flag.Arg(0))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "update-server:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, address, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open repository: %w", err)
	}
	defer root.Close()
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: server.Handler(root), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { s.Close() })
	fmt.Printf("http://%s/\n", l.Addr())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
