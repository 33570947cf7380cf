package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"

	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/ref"
)

const onStdin = "everybody on the machine can read a command line: say --password-stdin, or type it when asked"

// loginVerbs keep and forget credentials.
func loginVerbs() []verb {
	return []verb{
		{name: "login", args: "REGISTRY", what: "keep a name and a password for a registry", min: 1, max: 1, closed: true, setup: loginSetup,
			elsewhere: map[string]string{"-p": onStdin, "--password": onStdin},
			more: `They are tried first, and kept in ` + endpoint.LoginFile + `, which only root reads. docker's config.json in the home
directory and its credential helpers count as well.`},
		{name: "logout", args: "REGISTRY", what: "forget them", min: 1, max: 1, closed: true, setup: plain(logout)},
	}
}

type loginFlags struct {
	user             string
	stdin, tlsVerify bool
}

func loginSetup(s *flagset.Set) action {
	f := &loginFlags{tlsVerify: true}
	s.String(&f.user, "u,username", "NAME", "who")
	s.Bool(&f.stdin, "password-stdin", "read the password from standard input, without asking")
	s.Bool(&f.tlsVerify, "tls-verify", "=false: also over plain HTTP")
	return f.run
}

func (f *loginFlags) run(ctx context.Context, e *call) error {
	if f.user == "" {
		return errors.New("want --username")
	}
	host := e.args[0]
	r, err := ref.Parse(host + "/login")
	if err != nil || !strings.HasPrefix(r.Repository(), host+"/") {
		return fmt.Errorf("registry %q: want host[:port]", host)
	}
	password, err := e.password(f.stdin)
	if err != nil {
		return err
	}
	list, err := e.Endpoints.For(r, !f.tlsVerify)
	if err != nil {
		return err
	}
	list = list[len(list)-1:]
	list[0].Auth = endpoint.Auth{Username: f.user, Password: password}
	c, err := e.startFetcherAt(ctx, list, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Check(ctx); err != nil {
		return fmt.Errorf("%s does not take them: %w", host, err)
	}
	return endpoint.Save(e.Endpoints.Auth[0], host, list[0].Auth)
}

// password asks on the terminal, without echo, or reads the first line of standard input.
func (e *Env) password(stdin bool) (string, error) {
	if !stdin && term.IsTerminal(int(e.In.Fd())) {
		fmt.Fprint(e.Err, "Password: ")
		b, err := term.ReadPassword(int(e.In.Fd()))
		fmt.Fprintln(e.Err)
		return string(b), err
	}
	if !stdin {
		return "", errors.New("no terminal to ask for the password on: use --password-stdin")
	}
	line, err := bufio.NewReader(io.LimitReader(e.In, 64<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.New("no password on standard input")
	}
	return line, nil
}

func logout(_ context.Context, e *call) error {
	return endpoint.Save(e.Endpoints.Auth[0], e.args[0], endpoint.Auth{})
}
