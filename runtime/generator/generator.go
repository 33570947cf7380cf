// Package generator is systemd's generator for declared containers (systemd.generator(7)): it reads declarations, has package quadlet
// turn them into units, and writes those where systemd looks.
//
//	/run/containers/systemd, /etc/containers/systemd, /usr/share/containers/systemd      of two files with one name the first is taken
//	   web.container, *.container.d/*.conf, directories below                           (etc/containers/systemd/users is not for us)
//	/run/systemd/generator/                                                              units, and links for [Install]
//
// It runs in every boot and at every daemon-reload, before any unit: it talks to nobody, and a bad file costs its own unit only. Files
// are read whole if they are regular and no larger than a megabyte; directories are entered once each, whatever links say. What is
// wrong goes to the kernel's log, which is the journal, and is told again by the unit that fails in place of the one that was meant.
package generator

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/proa-os/proa/runtime/quadlet"
)

const usage = `quadlet-generator makes systemd units of declared containers.

Usage:
  quadlet-generator NORMAL EARLY LATE    as systemd calls it: write units to the directory NORMAL
  quadlet-generator --dryrun [PATH...]   print the units
  quadlet-generator --check [PATH...]    print what is wrong with the declarations; exit status 1 if anything is

PATH is a file or a directory; without one, all of the machine's. Files are seen together with those beside them
and with the machine's, as they may name each other.
`

// Env is where things are.
type Env struct {
	Dirs     []string // of declarations, the one that decides first
	UnitDirs []string // of units that are not to be replaced
	Kmsg     string   // the kernel's log
	Out, Err io.Writer
}

// Machine is the environment on a machine.
func Machine() *Env {
	return &Env{
		Dirs:     []string{"/run/containers/systemd", "/etc/containers/systemd", "/usr/share/containers/systemd"},
		UnitDirs: []string{"/etc/systemd/system", "/usr/lib/systemd/system"},
		Kmsg:     "/dev/kmsg",
		Out:      os.Stdout, Err: os.Stderr,
	}
}

// Main runs one command line and returns the exit code.
func (e *Env) Main(args []string) int {
	switch {
	case len(args) == 0 || args[0] == "--help" || args[0] == "-h":
		fmt.Fprint(e.Out, usage)
		return 0
	case args[0] == "--dryrun" || args[0] == "-dryrun":
		return e.dryrun(args[1:])
	case args[0] == "--check":
		return e.check(args[1:])
	case args[0] == "--fail" && len(args) == 2:
		// The unit in place of one that could not be made: it never succeeds.
		if e.check(args[1:]) == 0 {
			fmt.Fprintf(e.Err, "%s has no errors any more: systemctl daemon-reload\n", args[1])
		}
		return 1
	case strings.HasPrefix(args[0], "-") || len(args) > 3:
		fmt.Fprint(e.Err, usage)
		return 2
	}
	return e.generate(args[0])
}

// generate writes all units to dir.
func (e *Env) generate(dir string) int {
	units := e.units(e.Dirs)
	if len(units) == 0 {
		return 0
	}
	log, err := os.OpenFile(e.Kmsg, os.O_WRONLY, 0)
	if err != nil {
		log = os.Stderr
	}
	defer log.Close()
	code := 0
	say := func(text string) {
		code = 1
		fmt.Fprintf(log, "<3>quadlet-generator: %.900s\n", plain(text)) // a record of the kernel's log has a thousand bytes
	}
	for _, u := range units {
		for _, p := range u.Problems {
			say(p.Error())
		}
		if u.Name == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, u.Name), []byte(u.Text), 0o644); err != nil {
			say(err.Error())
		}
	}
	for _, u := range units { // after all units: a link takes no unit's place
		for _, l := range u.Links {
			name := filepath.Join(dir, l.Path)
			err := os.MkdirAll(filepath.Dir(name), 0o755)
			if err == nil {
				err = os.Symlink(l.Target, name)
			}
			if err != nil {
				say(fmt.Sprintf("%s: [Install]: %v", u.Source, err))
			}
		}
	}
	return code
}

func (e *Env) dryrun(paths []string) int {
	code := 0
	for _, u := range e.selected(paths) {
		for _, p := range u.Problems {
			fmt.Fprintln(e.Err, plain(p.Error()))
			code = 1
		}
		if u.Name == "" {
			continue
		}
		fmt.Fprintf(e.Out, "---%s---\n%s\n", u.Name, u.Text)
		for _, l := range u.Links {
			fmt.Fprintf(e.Out, "# link: %s -> %s\n", l.Path, l.Target)
		}
	}
	return code
}

func (e *Env) check(paths []string) int {
	code := 0
	for _, u := range e.selected(paths) {
		for _, p := range u.Problems {
			fmt.Fprintln(e.Err, plain(p.Error()))
			code = 1
		}
	}
	return code
}

// selected are the units of the named files and directories, of which a missing one is a problem.
func (e *Env) selected(paths []string) []quadlet.Unit {
	if len(paths) == 0 {
		return e.units(e.Dirs)
	}
	var dirs []string
	var wanted []string
	var out []quadlet.Unit
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		st, err2 := os.Stat(abs)
		if err := cmp.Or(err, err2); err != nil {
			out = append(out, quadlet.Unit{Source: p, Problems: []quadlet.Problem{{Path: p, Text: err.Error()}}})
			continue
		}
		dir := abs
		if !st.IsDir() {
			dir = filepath.Dir(abs)
			if !quadlet.Known(abs) {
				out = append(out, quadlet.Unit{Source: p, Problems: []quadlet.Problem{{Path: p, Text: "is no declaration: expected the extension .container, .volume, .network, .image or .pod"}}})
				continue
			}
		}
		wanted = append(wanted, abs)
		if !slices.ContainsFunc(e.Dirs, func(d string) bool { return below(dir, d) }) {
			dirs = append(dirs, dir)
		}
	}
	for _, u := range e.units(append(dirs, e.Dirs...)) {
		if slices.ContainsFunc(wanted, func(w string) bool { return below(u.Source, w) }) {
			out = append(out, u)
		}
	}
	return out
}

// below reports whether a path is dir or in it.
func below(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

func (e *Env) units(dirs []string) []quadlet.Unit {
	return quadlet.Convert(load(dirs), quadlet.Host{
		Taken: e.taken,
		Exists: func(path string) bool {
			_, err := os.Stat(path)
			return err == nil
		},
	})
}

// taken is the path of a unit of this name that somebody else has written. A masked one is nobody's.
func (e *Env) taken(unit string) string {
	for _, d := range e.UnitDirs {
		name := filepath.Join(d, unit)
		if _, err := os.Lstat(name); err != nil {
			continue
		}
		if target, _ := filepath.EvalSymlinks(name); target == "/dev/null" {
			return ""
		}
		return name
	}
	return ""
}

// plain keeps what others wrote from steering a terminal or adding lines.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
