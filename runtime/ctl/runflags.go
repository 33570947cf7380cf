package ctl

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
)

// runFlags are the flags of run: most of them straight into the container.
type runFlags struct {
	c         store.Container
	detach    bool
	later     bool // somebody else starts it: create
	tlsVerify bool
	pull      string
	platform  string
	cidFile   string
	userns    string
	healthCmd string
	from      []string // whose volumes it shares
	health    store.Health
	net       networkFlags
	noHealth  bool
	quiet     bool
	// Docker reads files first, wherever their flags stand.
	fileEnv       []string
	fileLabels    map[string]string
	quota, period int // of the processor time, microseconds
}

func newRunFlags() *runFlags {
	return &runFlags{tlsVerify: true, pull: "missing", userns: "host"}
}

func (r *runFlags) flags(s *flagset.Set) {
	c := &r.c
	restart := "always, unless-stopped, on-failure[:TIMES], no (default)"
	if !r.later {
		s.Bool(&r.detach, "d,detach", "run in the background")
		restart = "with -d: always (default), unless-stopped, on-failure[:TIMES], no"
	}
	s.Bool(&c.Stdin, "i,interactive", "pass standard input on; with -d keep it open, for attach")
	s.Bool(&c.Terminal, "t,tty", "with a terminal; with -d process 1 of the container holds it, as with --init")
	s.Bool(&c.Init, "init", "put a process in front of the workload that passes signals on and waits for orphans")
	s.Bool(&c.Remove, "rm", "remove the container when it ends")
	s.String(&c.Name, "name", "NAME", "the container's name (default: made up)")
	r.net.flags(s, c)
	secretFlag(s, c)
	s.Func("restart", "POLICY", restart, r.setRestart)
	r.processFlags(s)
	r.fileFlags(s)
	r.securityFlags(s)
	r.namespaceFlags(s)
	r.limitFlags(s)
	r.healthFlags(s)
	s.Func("l,label", "KEY[=VALUE]", "label of the container", setLabel(&r.c.Labels))
	s.Func("label-file", "FILE", "labels, one a line; --label overrules them", func(v string) error { return eachLine(v, setLabel(&r.fileLabels)) })
	s.Func("annotation", "KEY=VALUE", "annotation of the OCI configuration, which are the labels", setLabel(&r.c.Labels))
	s.String(&c.StopSignal, "stop-signal", "SIGNAL", "what stop sends first (default TERM, or what the image says)")
	s.Int(&c.StopTimeout, 1, "stop-timeout", "SECONDS", "how long stop waits before killing (default 10)")
	s.Func("sdnotify", "MODE", "container: the workload says when it is ready; healthy: it is when its health check succeeds;\nignore: it counts as ready when it runs (default)", func(v string) error {
		if v != "container" && v != "healthy" && v != "ignore" && v != "conmon" {
			return errors.New("want container, healthy or ignore")
		}
		c.Notify, c.AwaitHealth = v == "container", v == "healthy"
		return nil
	})
	s.Int(&c.Preserve, 0, "preserve-fds", "N", "without -d: hand on N descriptors from 3 on")
	s.Func("log-driver", "DRIVER", "journald (default), none", func(v string) error {
		if v != "journald" && v != "passthrough" && v != "none" {
			return errors.New("want journald or none: output goes to the journal, from where systemd-journal-upload and others take it")
		}
		c.NoLog = v == "none"
		return nil
	})
	s.Func("sig-proxy", "", "accepted: signals to containerctl run are the container's", func(v string) error {
		if v != "true" {
			return errors.New("the container has the signals of the foreground: use -d, and attach --sig-proxy=false")
		}
		return nil
	})
	s.Bool(&r.quiet, "q,quiet", "show no progress of pulling")
	s.String(&r.cidFile, "cidfile", "FILE", "write the container's name to a file that must not exist")
	s.Func("pull", "WHEN", "missing (default), always, never; newer: always, but without the registry what is here", pullPolicy(&r.pull))
	s.String(&r.platform, "platform", "OS/ARCH", "refuse an image for another platform")
	s.Bool(&r.tlsVerify, "tls-verify", "=false: pull without TLS if need be")
}

func (r *runFlags) setRestart(v string) error {
	policy, times, limited := strings.Cut(v, ":")
	switch {
	case limited && policy == "on-failure":
		n, err := strconv.Atoi(times)
		if err != nil || n < 1 {
			return errors.New("want on-failure:TIMES")
		}
		r.c.Restarts = n
	case limited || !slices.Contains([]string{"no", "always", "unless-stopped", "on-failure"}, policy):
		return errors.New("want always, unless-stopped, on-failure[:TIMES] or no")
	}
	r.c.Restart = policy
	return nil
}

func setLabel(labels *map[string]string) func(string) error {
	return func(v string) error {
		k, val, _ := strings.Cut(v, "=")
		if k == "" {
			return errors.New("want KEY[=VALUE]")
		}
		if *labels == nil {
			*labels = make(map[string]string)
		}
		(*labels)[k] = val
		return nil
	}
}

// processFlags are about the workload's process.
func (r *runFlags) processFlags(s *flagset.Set) {
	c := &r.c
	s.Func("e,env", "NAME[=VALUE]", "environment variable; without a value that of containerctl", setEnv(&c.Env))
	s.Func("env-file", "FILE", "environment variables, one a line; --env overrules them", func(v string) error { return eachLine(v, setEnv(&r.fileEnv)) })
	s.String(&c.User, "u,user", "USER[:GROUP]", "names or numbers (default: what the image says)")
	s.List(&c.Groups, "group-add", "GROUP", "one more group, name or number")
	s.String(&c.WorkDir, "w,workdir", "DIR", "working directory in the container")
	s.String(&c.Hostname, "h,hostname", "NAME", "host name in the container (default: the container's name)")
	s.Func("entrypoint", "PROGRAM", "instead of the image's entrypoint; empty for none; a JSON list for a program with arguments", func(v string) error {
		c.Entrypoint = []string{v}
		if list := jsonWords(v); list != nil {
			c.Entrypoint = list
		}
		return nil
	})
	s.Func("ulimit", "NAME=SOFT[:HARD]", "resource limit, for example nofile=1024:4096; -1 for none", r.addUlimit)
	s.Func("sysctl", "NAME=VALUE", "kernel setting of the container's namespaces", func(v string) error {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return errors.New("want NAME=VALUE")
		}
		if c.Sysctls == nil {
			c.Sysctls = make(map[string]string)
		}
		c.Sysctls[name] = value
		return nil
	})
}

// jsonWords are the words of a JSON list of texts, podman's way to write several; nil if it is none.
func jsonWords(v string) (list []string) {
	if !strings.HasPrefix(v, "[") || json.Unmarshal([]byte(v), &list) != nil || len(list) == 0 {
		return nil
	}
	return list
}

// setEnv takes a variable as docker does: one without a value has ours, and none if we have none.
func setEnv(list *[]string) func(string) error {
	return func(v string) error {
		name, _, ok := strings.Cut(v, "=")
		if name == "" || strings.ContainsAny(name, " \t") {
			return errors.New("want NAME[=VALUE]")
		}
		if !ok {
			value, ok := os.LookupEnv(name)
			if !ok {
				return nil
			}
			v += "=" + value
		}
		*list = append(*list, v)
		return nil
	}
}

// eachLine calls f with the lines of a file but empty ones and comments.
func eachLine(name string, f func(string) error) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	sc := bufio.NewScanner(in)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimLeft(sc.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := f(line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return sc.Err()
}

func (r *runFlags) addUlimit(v string) error {
	name, value, ok := strings.Cut(v, "=")
	soft, hard, both := strings.Cut(value, ":")
	if !both {
		hard = soft
	}
	number := func(s string) (uint64, error) {
		if s == "-1" || s == "unlimited" {
			return unix.RLIM_INFINITY, nil
		}
		return strconv.ParseUint(s, 10, 63)
	}
	l := store.Ulimit{Name: strings.ToLower(name)}
	var err1, err2 error
	l.Soft, err1 = number(soft)
	l.Hard, err2 = number(hard)
	if !ok || name == "" || err1 != nil || err2 != nil || l.Soft > l.Hard {
		return errors.New("want NAME=SOFT[:HARD]")
	}
	r.c.Ulimits = append(slices.DeleteFunc(r.c.Ulimits, func(old store.Ulimit) bool { return old.Name == l.Name }), l)
	return nil
}

// fileFlags are about the container's files.
func (r *runFlags) fileFlags(s *flagset.Set) {
	c := &r.c
	s.Func("v,volume", "[SOURCE:]TARGET[:OPTIONS]", "a named volume, or a directory or file of the machine, in the container;\nwithout SOURCE a new volume; OPTIONS: ro, nocopy, U, noexec, rshared ...", func(v string) error { return addVolume(c, v) })
	s.Func("volumes-from", "CONTAINER[:ro]", "the volumes of another container at the same places, but where -v or --mount says otherwise", func(v string) error {
		r.from = append(r.from, v)
		_, _, err := splitFrom(v)
		return err
	})
	s.Func("mount", "type=TYPE,...", "type=bind,source=HOST,target=CONTAINER[,readonly]; type=volume,source=NAME,target=CONTAINER; type=tmpfs,target=CONTAINER[,tmpfs-size=SIZE]", func(v string) error { return addMount(c, v) })
	s.Func("tmpfs", "CONTAINER[:OPTIONS]", "a file system in memory; size=64m, mode=1777 ...", func(v string) error { return addTmpfs(c, v) })
	s.Bool(&c.ReadOnly, "read-only", "make the root file system read-only")
	s.Func("shm-size", "SIZE", "size of /dev/shm (default 64m)", sizeFlag(&c.ShmSize))
	s.Func("device", "HOST[:CONTAINER][:rwm]", "a device of the machine", func(v string) error { return addDevice(c, v) })
}

func addDevice(c *store.Container, v string) error {
	f := strings.Split(v, ":")
	d := store.Device{Source: f[0], Target: f[0], Access: "rwm"}
	access := regexp.MustCompile(`^[rwm]{1,3}$`)
	switch {
	case len(f) == 2 && access.MatchString(f[1]):
		d.Access = f[1]
	case len(f) == 2:
		d.Target = f[1]
	case len(f) == 3:
		d.Target, d.Access = f[1], f[2]
	}
	if len(f) > 3 || !isDevice(d.Source) || !path.IsAbs(d.Target) || !access.MatchString(d.Access) {
		return errors.New("want /dev/NAME[:CONTAINER][:rwm]")
	}
	c.Devices = append(c.Devices, d)
	return nil
}

// isDevice reports whether a path can be a device's, in a unit too.
func isDevice(v string) bool {
	return strings.HasPrefix(v, "/dev/") && path.Clean(v) == v && !strings.ContainsAny(v, " \t\n\"'\\")
}

// sizeFlag reads a size.
func sizeFlag(p *int64) func(string) error {
	return func(v string) (err error) {
		*p, err = parseSize(v)
		return err
	}
}
