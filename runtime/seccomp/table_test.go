package seccomp

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write table.go anew from golang.org/x/sys")

// TestTable holds table.go against the numbers in golang.org/x/sys, which come from the kernel's headers.
func TestTable(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("package seccomp\n\n// The tables are made from golang.org/x/sys/unix (go test -run TestTable -update ./runtime/seccomp), sorted by name.\n\n")
	for _, arch := range []string{"amd64", "386"} {
		b.WriteString(source(t, arch))
	}
	want := bytes.TrimRight(b.Bytes(), "\n")
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("table.go", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("table.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("table.go differs from golang.org/x/sys: run this test with -update and look at the difference")
	}
}

func source(t *testing.T, arch string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		t.Fatalf("find golang.org/x/sys: %v", err)
	}
	src, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "zsysnum_linux_"+arch+".go"))
	if err != nil {
		t.Fatal(err)
	}
	var calls []call
	for _, m := range regexp.MustCompile(`(?m)^\s*SYS_(\w+)\s*= (\d+)$`).FindAllSubmatch(src, -1) {
		nr, err := strconv.ParseUint(string(m[2]), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, call{strings.ToLower(string(m[1])), uint32(nr)})
	}
	if len(calls) < 300 {
		t.Fatalf("found only %d system calls of %s", len(calls), arch)
	}
	slices.SortFunc(calls, func(a, b call) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	fmt.Fprintf(&b, "var calls%s = [...]call{\n", strings.ToUpper(arch))
	for i := 0; i < len(calls); i += 4 {
		b.WriteByte('\t')
		for j, c := range calls[i:min(i+4, len(calls))] {
			if j > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprintf(&b, "{%q, %d},", c.name, c.nr)
		}
		b.WriteByte('\n')
	}
	b.WriteString("}\n\n")
	return b.String()
}
