package apply

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/source"
)

// Goldens: testdata/<case>.before and .after are trees as text, .ign is the config between them.
var update = flag.Bool("update", false, "write the .after files from what happens")

func cases(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("testdata/*.ign")
	if err != nil || len(names) == 0 {
		t.Fatal("no cases in testdata", err)
	}
	for i, n := range names {
		names[i] = strings.TrimSuffix(n, ".ign")
	}
	return names
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func planOf(t *testing.T, name, text string) []plan.Op {
	t.Helper()
	m, err := config.Load(t.Context(), filepath.Base(name), []byte(text), source.Fetcher{}.Config)
	if err != nil {
		t.Fatal(err)
	}
	ops, err := plan.Build(m)
	if err != nil {
		t.Fatal(err)
	}
	return ops
}

func options(owners Owners) Options {
	return Options{Fetch: (&source.Fetcher{Offline: true}).Fetch, Owners: owners}
}

func TestGoldens(t *testing.T) {
	for _, name := range cases(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			all := map[string]Owners{"recorded": ownerMap{}}
			if os.Geteuid() == 0 {
				all["real"] = InodeOwners{}
			}
			for kind, owners := range all {
				root := newTree(t)
				build(t, root, owners, read(t, name+".before"))
				ops := planOf(t, name, read(t, name+".ign"))
				for _, round := range []string{"first", "second"} {
					if err := Run(t.Context(), root, ops, options(owners)); err != nil {
						t.Fatalf("%s run, %s owners: %v", round, kind, err)
					}
					got := dump(t, root, owners, true)
					if *update && kind == "recorded" && round == "first" {
						if err := os.WriteFile(name+".after", []byte(got), 0o644); err != nil {
							t.Fatal(err)
						}
					}
					if want := read(t, name+".after"); got != want {
						t.Errorf("%s run, %s owners: %s", round, kind, difference(got, want))
					}
				}
			}
		})
	}
}

// TestPowerCutAnywhere stops every case before its n-th change of the tree, for all n, and runs it again.
func TestPowerCutAnywhere(t *testing.T) {
	errCut := errors.New("power cut")
	for _, name := range cases(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			before, ops := read(t, name+".before"), planOf(t, name, read(t, name+".ign"))
			whole, owners := newTree(t), ownerMap{}
			build(t, whole, owners, before)
			var steps []string
			o := options(owners)
			o.Fault = func(step string) error {
				steps = append(steps, step)
				return nil
			}
			if err := Run(t.Context(), whole, ops, o); err != nil {
				t.Fatal(err)
			}
			want := dump(t, whole, owners, false)
			for n, step := range steps {
				root, owners := newTree(t), ownerMap{}
				build(t, root, owners, before)
				o := options(owners)
				left := n
				o.Fault = func(string) error {
					if left == 0 {
						return errCut
					}
					left--
					return nil
				}
				if err := Run(t.Context(), root, ops, o); err == nil || !strings.Contains(err.Error(), errCut.Error()) {
					t.Fatalf("cut before %q: got error %v", step, err)
				}
				if err := Run(t.Context(), root, ops, options(owners)); err != nil {
					t.Fatalf("cut before %q, second run: %v", step, err)
				}
				if got := dump(t, root, owners, false); got != want {
					t.Fatalf("cut before %q: %s", step, difference(got, want))
				}
			}
		})
	}
}

const accountsBefore = `etc dir 0755 0:0
etc/group file 0644 0:0
    |root:x:0:
    |core:x:1000:
etc/passwd file 0644 0:0
    |root:x:0:0:root:/root:/bin/sh
    |core:x:1000:1000:Operator:/home/core:/bin/sh
etc/profile file 0644 0:0
    |export A=1
etc/shadow file 0600 0:0
    |root:*:20000::::::
    |core:*:20000:0:99999:7:::
`

// A config that failed is corrected, and the next boot must not trip over what the first one has done.
func TestCorrectedConfigRunsOnWhatTheFirstLeft(t *testing.T) {
	const first = `{"ignition":{"version":"3.4.0"},"storage":{"files":[
		{"path":"/etc/motd","contents":{"source":"data:,one"}},
		{"path":"/etc/profile","append":[{"source":"data:,two"}]},
		{"path":"/etc/x/zz","user":{"name":"nobody-here"}}],
		"links":[{"path":"/etc/l","target":"one"}]}}`
	second := strings.NewReplacer("data:,one", "data:,three", "data:,two", "data:,four", "nobody-here", "core", `"one"`, `"two"`).Replace(first)
	root, owners := newTree(t), ownerMap{}
	build(t, root, owners, accountsBefore)
	err := Run(t.Context(), root, planOf(t, "a.ign", first), options(owners))
	want := "a.ign:4:11: storage.files[2].path: write file /etc/x/zz: unknown user: expected a user of /etc/passwd or of passwd.users, found nobody-here; add it to passwd.users, or correct the name"
	if err == nil || err.Error() != want {
		t.Fatalf("got error %v, want %s", err, want)
	}
	for range 2 {
		if err := Run(t.Context(), root, planOf(t, "a.ign", second), options(owners)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"etc/motd": "three", "etc/profile": "export A=1\nfour", "etc/x/zz": ""} {
		if got, err := root.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	if got, _ := root.Readlink("etc/l"); got != "two" {
		t.Errorf("etc/l: got %q", got)
	}
}

func TestTornJournal(t *testing.T) {
	const cfg = `{"ignition":{"version":"3.4.0"},"storage":{"files":[
		{"path":"/etc/profile","append":[{"source":"data:,two"}]},
		{"path":"/etc/motd","contents":{"source":"data:,one"}}]}}`
	whole, owners := newTree(t), ownerMap{}
	build(t, whole, owners, accountsBefore)
	if err := Run(t.Context(), whole, planOf(t, "a.ign", cfg), options(owners)); err != nil {
		t.Fatal(err)
	}
	journal, err := whole.ReadFile(journalFile)
	if err != nil {
		t.Fatal(err)
	}
	want := dump(t, whole, owners, true)
	// The last record is of the last file: without the record, and without what it announces.
	lines := strings.SplitAfter(string(journal), "\n")
	for cut := len(journal) - len(lines[len(lines)-2]); cut < len(journal); cut++ {
		if err := whole.WriteFile(journalFile, journal[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		last := "etc/motd"
		if strings.Contains(lines[len(lines)-2], "profile") {
			last = "etc/profile"
			if err := whole.WriteFile(last, []byte("export A=1\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if err := whole.Remove(last); err != nil {
			t.Fatal(err)
		}
		if err := Run(t.Context(), whole, planOf(t, "a.ign", cfg), options(owners)); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if got := dump(t, whole, owners, true); got != want {
			t.Fatalf("cut at %d: %s", cut, difference(got, want))
		}
	}
}

// What an operation refuses, word for word: people act on these lines.
func TestErrors(t *testing.T) {
	tests := []struct{ name, config, want string }{
		{"file exists", `"storage":{"files":[{"path":"/etc/profile","contents":{"source":"data:,x"}}]}`,
			`c.ign:1:61: storage.files[0].path: write file /etc/profile: a file with other contents exists: expected no file at /etc/profile, or the same contents, found a file; choose another path or set "overwrite": true`},
		{"wrong hash", `"storage":{"files":[{"path":"/etc/x","contents":{"source":"data:,x","verification":{"hash":"sha256-0000000000000000000000000000000000000000000000000000000000000000"}}}]}`,
			`c.ign:1:61: storage.files[0].path: write file /etc/x: wrong hash: expected 0000000000000000000000000000000000000000000000000000000000000000, found 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881; correct the hash, or what the source serves`},
		{"not gzip", `"storage":{"files":[{"path":"/etc/x","contents":{"source":"data:,secretsecretsecret","compression":"gzip"}}]}`,
			`c.ign:1:61: storage.files[0].path: write file /etc/x: decompress: expected gzip: gzip: invalid header; correct what is named here, and run it again`},
		{"network", `"storage":{"files":[{"path":"/etc/x","contents":{"source":"http://user:password@example.com/x?token=1"}}]}`,
			`c.ign:1:61: storage.files[0].path: write file /etc/x: fetch http://example.com/x: needs the network; put the contents into the config as a data: URL`},
		{"unknown group", `"storage":{"directories":[{"path":"/srv/x","group":{"name":"web"}}]}`,
			`c.ign:1:67: storage.directories[0].path: make directory /srv/x: unknown group: expected a group of /etc/group or of passwd.groups, found web; add it to passwd.groups, or correct the name`},
		{"parent is a file", `"storage":{"files":[{"path":"/etc/passwd/x"}]}`,
			`c.ign:1:61: storage.files[0].path: write file /etc/passwd/x: not a directory: expected a directory at /etc/passwd, found a file; remove what is there, or choose another path`},
		{"directory over file", `"storage":{"directories":[{"path":"/etc/passwd"}]}`,
			`c.ign:1:67: storage.directories[0].path: make directory /etc/passwd: something exists at /etc/passwd: expected nothing, or a directory, found a file; choose another path or set "overwrite": true`},
		{"link over file", `"storage":{"links":[{"path":"/etc/profile","target":"x"}]}`,
			`c.ign:1:61: storage.links[0].path: make link /etc/profile -> x: something exists at /etc/profile: expected nothing, or a link to x, found a file; choose another path or set "overwrite": true`},
		{"hard link to nothing", `"storage":{"links":[{"path":"/etc/h","target":"/etc/none","hard":true}]}`,
			`c.ign:1:61: storage.links[0].path: make link /etc/h -> /etc/none: no file to link to: expected a file at /etc/none, found nothing; correct target, or describe that file in the config`},
		{"supplementary group", `"passwd":{"users":[{"name":"core","groups":["docker"]}]}`,
			`c.ign:1:60: passwd.users[0].name: ensure user core: unknown group: expected a group of /etc/group or of passwd.groups, found docker; add it to passwd.groups, or correct the name`},
		{"no such shell", `"passwd":{"users":[{"name":"core","shell":"/bin/bash"}]}`,
			`c.ign:1:60: passwd.users[0].name: ensure user core: no such shell: expected a program of the root image, such as /bin/sh, found /bin/bash; correct shell, or leave it out`},
		{"move home", `"passwd":{"users":[{"name":"core","homeDir":"/srv/core"}]}`,
			`c.ign:1:60: passwd.users[0].name: ensure user core: cannot move a home directory: expected /home/core, which it has, found /srv/core; remove homeDir, or describe a new user`},
		{"remove root", `"passwd":{"users":[{"name":"root","shouldExist":false}]}`,
			`c.ign:1:60: passwd.users[0].name: remove user root: refuse to remove a user with uid 0: expected another user, found root; remove this entry from the config`},
		{"uid in use", `"passwd":{"users":[{"name":"bob","uid":1000}]}`,
			`c.ign:1:60: passwd.users[0].name: ensure user bob: user id in use: expected a free uid, found 1000; choose another uid, or leave it out to get a free one`},
		{"keys of nobody", `"passwd":{"users":[{"name":"core","shouldExist":false},{"name":"core2","shouldExist":false}]},"systemd":{"units":[{"name":"nope.service","enabled":true}]}`,
			`c.ign:1:180: systemd.units[0].enabled: enable unit nope.service: no such unit: expected a unit file in /etc/systemd/system, /usr/local/lib/systemd/system, /usr/lib/systemd/system, found none; correct the name or give the unit contents`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root, owners := newTree(t), ownerMap{}
			build(t, root, owners, accountsBefore)
			ops := planOf(t, "c.ign", `{"ignition":{"version":"3.6.0"},`+tt.config+`}`)
			err := Run(context.Background(), root, ops, options(owners))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			for _, secret := range []string{"password@", "token", "secret"} {
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows a secret: %v", err)
				}
			}
		})
	}
}

// TestNothingLeavesTheRoot lays links to a directory beside the root where operations write.
func TestNothingLeavesTheRoot(t *testing.T) {
	const cfg = `{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"core","sshAuthorizedKeys":["ssh-ed25519 AAAA x"]}]},"storage":{"files":[
		{"path":"/evil/abs/f","contents":{"source":"data:,x"}},
		{"path":"/evil/rel/f","contents":{"source":"data:,x"}},
		{"path":"/evil/file","overwrite":true,"contents":{"source":"data:,x"}}],
		"directories":[{"path":"/evil/abs/d"}], "links":[{"path":"/evil/rel/l","target":"x"}]}}`
	root, owners := newTree(t), ownerMap{}
	outside := filepath.Join(filepath.Dir(root.Name()), "outside")
	if err := os.Mkdir(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(outside+"/file", []byte("untouched"), 0o666); err != nil {
		t.Fatal(err)
	}
	build(t, root, owners, accountsBefore+fmt.Sprintf("evil dir 0755 0:0\nevil/abs link 0:0 -> %s\nevil/rel link 0:0 -> ../../../../../..%s\nevil/file link 0:0 -> %s/file\n", outside, outside, outside))
	if err := Run(t.Context(), root, planOf(t, "c.ign", cfg), options(owners)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 || read(t, outside+"/file") != "untouched" {
		t.Errorf("outside: got %v, %v", entries, err)
	}
	if got, err := root.ReadFile(strings.TrimPrefix(outside, "/") + "/f"); err != nil || string(got) != "x" {
		t.Errorf("inside: got %q, %v", got, err)
	}
}

func TestLinkInHomeIsNotFollowed(t *testing.T) {
	const cfg = `{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"core","sshAuthorizedKeys":["ssh-ed25519 AAAA x"]}]}}`
	root, owners := newTree(t), ownerMap{}
	build(t, root, owners, accountsBefore+"home dir 0755 0:0\nhome/core dir 0700 1000:1000\nhome/core/.ssh link 1000:1000 -> /etc\n")
	err := Run(t.Context(), root, planOf(t, "c.ign", cfg), options(owners))
	want := "c.ign:1:87: passwd.users[0].sshAuthorizedKeys: write 1 ssh keys of user core: not a directory: expected a directory at /home/core/.ssh, found a symbolic link; remove what is there, or choose another path"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
