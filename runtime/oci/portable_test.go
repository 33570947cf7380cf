package oci

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/script"
)

// bothWays runs the same bundle by the assembly and by a second process, and returns what each did.
func bothWays(b *box, args ...string) (out, errs [2]string, code [2]int) {
	b.t.Helper()
	for i, v := range []string{"", "1"} {
		b.t.Setenv("PROA_OCI_PORTABLE", v)
		out[i], errs[i], code[i] = b.runtime(args...)
		b.leftNothing()
	}
	return out, errs, code
}

// TestPortable: the two ways to walk a script end in the same container, and in the same errors.
func TestPortable(t *testing.T) {
	if !script.Direct {
		t.Skip("NOT TESTED: this build has one way only")
	}
	umask := uint32(0o027)
	for name, change := range map[string]func(*box){
		"plain": func(b *box) {},
		"user": func(b *box) {
			p := b.spec.Process
			p.User = specs.User{UID: 1234, GID: 2345, AdditionalGids: []uint32{7, 9}, Umask: &umask}
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 100}}
			p.NoNewPrivileges = false
			p.Capabilities.Inheritable, p.Capabilities.Ambient = []string{"CAP_KILL"}, []string{"CAP_KILL"}
			p.Cwd = "/tmp"
		},
		"in PATH": func(b *box) { b.spec.Process.Args[0] = "probe" },
		"no namespaces": func(b *box) {
			b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[:2]
			b.spec.Hostname = ""
			b.spec.Linux.Sysctl = nil
		},
		"no program":  func(b *box) { b.spec.Process.Args[0] = "/nothing" },
		"not in PATH": func(b *box) { b.spec.Process.Args[0] = "nothing" },
		"directory":   func(b *box) { b.spec.Process.Args[0] = "/tmp" },
		"no cwd":      func(b *box) { b.spec.Process.Cwd = "/probe" },
		"file of no type": func(b *box) {
			os.WriteFile(filepath.Join(b.dir, "rootfs/tmp/x"), []byte("?"), 0o755)
			b.spec.Process.Args[0] = "/tmp/x"
		},
		"not executable": func(b *box) {
			os.WriteFile(filepath.Join(b.dir, "rootfs/tmp/x"), nil, 0o644)
			b.spec.Process.Args[0] = "/tmp/x"
		},
		"bad option":       func(b *box) { b.spec.Mounts[0].Options = []string{"hidepid=many"} },
		"bad sysctl value": func(b *box) { b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "much"} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "view")
			change(b)
			b.write()
			out, errs, code := bothWays(b, "run", "box")
			if code[0] != code[1] || errs[0] != errs[1] {
				t.Errorf("directly: exit %d: %s\nportably: exit %d: %s", code[0], errs[0], code[1], errs[1])
			}
			if works := name == "plain" || name == "user" || name == "in PATH" || name == "no namespaces"; works != (code[0] == 0) {
				t.Errorf("exit %d: %s", code[0], errs[0])
			}
			if code[0] != 0 {
				if !strings.Contains(errs[0], "oci-runtime: ") {
					t.Errorf("no error: %q", errs[0])
				}
				return
			}
			var v [2]view
			for i := range v {
				if err := json.Unmarshal([]byte(out[i]), &v[i]); err != nil {
					t.Fatalf("%v: %s", err, out[i])
				}
				maps.DeleteFunc(v[i].Status, func(k, _ string) bool {
					return !strings.HasPrefix(k, "Cap") && !strings.HasPrefix(k, "Sig") && !strings.HasPrefix(k, "NS") && !strings.HasPrefix(k, "Sec") &&
						k != "NoNewPrivs" && k != "Uid" && k != "Gid" && k != "Groups" && k != "Umask" && k != "Name" && k != "PPid"
				})
				delete(v[i].Status, "SigQ")
			}
			if !reflect.DeepEqual(v[0], v[1]) {
				t.Errorf("directly: %+v\nportably: %+v", v[0], v[1])
			}
		})
	}
}

// TestPortableLifeCycle: create and exec, too, work without the assembly.
func TestPortableLifeCycle(t *testing.T) {
	t.Setenv("PROA_OCI_PORTABLE", "1")
	TestLifeCycle(t)
}
