package flagset

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

type options struct {
	detach, tty, input bool
	name               string
	env                []string
	retries            int
}

func (o *options) set() *Set {
	s := new(Set)
	s.Bool(&o.detach, "d,detach", "run in the background")
	s.Bool(&o.tty, "t,tty", "terminal")
	s.Bool(&o.input, "i", "input")
	s.String(&o.name, "name,called", "NAME", "name")
	s.List(&o.env, "e,env", "KEY=VALUE", "environment")
	s.Int(&o.retries, 1, "retries", "N", "tries")
	return s
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		line string
		all  bool
		want options
		rest []string
	}{
		{"-d --name web image cmd -d", false, options{detach: true, name: "web"}, []string{"image", "cmd", "-d"}},
		{"web -d x", true, options{detach: true}, []string{"web", "x"}},
		{"-it --called=a=b", true, options{tty: true, input: true, name: "a=b"}, nil},
		{"-e A=1 -eB=2 --env C=3 --env=D=4", true, options{env: []string{"A=1", "B=2", "C=3", "D=4"}}, nil},
		{"-d=false --retries 3", true, options{retries: 3}, nil},
		{"-d -- -t", true, options{detach: true}, []string{"-t"}},
		{"-", true, options{}, []string{"-"}},
	} {
		var got options
		rest, err := got.set().Parse(strings.Fields(c.line), c.all)
		if err != nil || !reflect.DeepEqual(got, c.want) || !reflect.DeepEqual(rest, c.rest) {
			t.Errorf("%s: got %+v %q %v, want %+v %q", c.line, got, rest, err, c.want, c.rest)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"--color":      "unknown flag --color",
		"-dx":          `unknown flag -x in "-dx"`,
		"--name":       "flag --name: missing NAME behind it",
		"--detach=mad": `flag --detach "mad": want true or false`,
		"--retries 0":  "at least 1",
	} {
		_, err := new(options).set().Parse(strings.Fields(line), true)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", line, err, want)
		}
	}
	for _, h := range []string{"-h", "--help", "-dh"} {
		if _, err := new(options).set().Parse([]string{h}, true); !errors.Is(err, ErrHelp) {
			t.Errorf("%s: %v", h, err)
		}
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	help := new(options).set().Help()
	for _, want := range []string{"-d, --detach", "-i ", "--name, --called NAME", "-e, --env KEY=VALUE"} {
		if !strings.Contains(help, want) {
			t.Errorf("no %q in\n%s", want, help)
		}
	}
}
