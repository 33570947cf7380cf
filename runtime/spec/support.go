package spec

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// supported lists the leaves of the specification's structure that this runtime carries out. Everything else that has
// a value is an error, so a field that a later specs-go brings is refused until somebody writes it down here.
//
// A name ends in ".*" where all below it is supported; slices and maps are passed through without an index.
const supported = `
ociVersion hostname domainname annotations.*
process.terminal process.consoleSize.* process.user.uid process.user.gid process.user.umask process.user.additionalGids.*
process.args.* process.env.* process.cwd process.capabilities.* process.rlimits.* process.noNewPrivileges
process.oomScoreAdj process.scheduler.* process.ioPriority.* process.apparmorProfile process.selinuxLabel
process.execCPUAffinity.*
root.*
mounts.destination mounts.type mounts.source mounts.options.* mounts.uidMappings.* mounts.gidMappings.*
hooks.*
linux.uidMappings.* linux.gidMappings.* linux.sysctl.* linux.resources.* linux.cgroupsPath linux.namespaces.* linux.devices.*
linux.seccomp.* linux.rootfsPropagation linux.maskedPaths.* linux.readonlyPaths.* linux.personality.* linux.timeOffsets.*
linux.memoryPolicy.* linux.netDevices.* linux.intelRdt.* linux.mountLabel
`

// unsupported returns an *UnsupportedError for the first field, in the order of the specification, that has a value
// and is not supported.
func unsupported(s *specs.Spec) error {
	return walk("", s)
}

// NeedsCgroup reports whether linux.resources asks for something that only a cgroup can do.
func NeedsCgroup(s *specs.Spec) bool {
	r := s.Linux.Resources
	if r == nil {
		return false
	}
	for _, v := range []any{r.Memory, r.CPU, r.Pids, r.BlockIO, r.Network} {
		if !reflect.ValueOf(v).IsZero() {
			return true
		}
	}
	return len(r.Devices)+len(r.HugepageLimits)+len(r.Rdma)+len(r.Unified) > 0
}

// HasDev reports whether the configuration mounts something at /dev.
func HasDev(s *specs.Spec) bool {
	return slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return Destination(m) == "/dev" })
}

func walk(prefix string, v any) error {
	table := make(map[string]bool)
	for _, f := range strings.Fields(supported) {
		table[f] = true
	}
	return walkValue(table, prefix, prefix, reflect.ValueOf(v))
}

// walkValue visits v; key is its name in the table, field the same with indices, for people.
func walkValue(table map[string]bool, key, field string, v reflect.Value) error {
	if !v.IsValid() || v.IsZero() || table[key+".*"] {
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.Elem().Kind() == reflect.Struct {
			return walkValue(table, key, field, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			k, fd := key, field
			if name != "" {
				k, fd = join(key, name), join(field, name)
			}
			if err := walkValue(table, k, fd, v.Field(i)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Slice:
		for i := range v.Len() {
			if err := walkValue(table, key, fmt.Sprintf("%s[%d]", field, i), v.Index(i)); err != nil {
				return err
			}
		}
		if v.Len() == 0 || v.Type().Elem().Kind() == reflect.Struct {
			return nil
		}
	case reflect.Map:
		if v.Len() == 0 {
			return nil
		}
	}
	if table[key] {
		return nil
	}
	return &UnsupportedError{Field: field}
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "." + b
}
