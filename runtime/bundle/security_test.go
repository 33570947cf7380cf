package bundle

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/store"
)

func TestSecure(t *testing.T) {
	make := func(c *store.Container) *specs.Spec {
		t.Helper()
		c.Name, c.Network = "x", "none"
		s, err := Spec(c, img(), User{}, Place{"/r", "/f"}, Start{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := make(&store.Container{Privileged: true})
	if s.Linux.Seccomp != nil || len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) > 0 || !slices.Contains(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN") {
		t.Errorf("privileged: %+v", s.Linux)
	}
	s = make(&store.Container{Security: &store.Security{Unmask: []string{"/proc/a*", "/proc/sys"}, Mask: []string{"/extra"}, AppArmor: "mine"}})
	if m := s.Linux.MaskedPaths; slices.Contains(m, "/proc/acpi") || !slices.Contains(m, "/proc/kcore") || !slices.Contains(m, "/extra") ||
		slices.Contains(s.Linux.ReadonlyPaths, "/proc/sys") || s.Process.ApparmorProfile != "mine" {
		t.Errorf("masked %q, read-only %q", m, s.Linux.ReadonlyPaths)
	}
	if s = make(&store.Container{}); !slices.Contains(s.Linux.MaskedPaths, "/proc/acpi") {
		t.Error("what one container unmasks another's profile lacks")
	}
}

// TestProfile: the conditions of docker's profiles are settled here.
func TestProfile(t *testing.T) {
	const text = `{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[
{"names":["read","write"],"action":"SCMP_ACT_ALLOW","args":[],"comment":"x","includes":{},"excludes":{}},
{"name":"mount","action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
{"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390x"]}},
{"names":["elsewhere"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}}]}`
	for _, c := range []struct{ bounding, want []string }{{nil, []string{"read", "write", "clone"}}, {[]string{"CAP_SYS_ADMIN"}, []string{"read", "write", "mount"}}} {
		p, err := profile([]byte(text), c.bounding)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range p.Syscalls {
			got = append(got, r.Names...)
		}
		if !slices.Equal(got, c.want) || len(p.Architectures) == 0 || p.DefaultAction != specs.ActErrno {
			t.Errorf("with %v: %q %v, want %q", c.bounding, got, p.Architectures, c.want)
		}
	}
	if _, err := profile([]byte(`{"syscalls":3}`), nil); err == nil {
		t.Error("nonsense is taken")
	}
}
