package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestFailures(t *testing.T) {
	var long strings.Builder
	for i := range 2 * most {
		fmt.Fprintf(&long, "        line %d.\n", i)
	}
	log := `=== RUN   TestA
=== PAUSE TestA
=== RUN   TestB
    b_test.go:1: all is well
=== CONT  TestA
=== RUN   TestA/step
    a_test.go:7: got 1, want 2
=== NAME  TestB
    b_test.go:2: and here
--- PASS: TestB (1.00s)
=== NAME  TestA/step
        of 3
=== NAME  TestA
    a_test.go:9: got 3, want 4` + strings.Repeat("!", 2*wide) + `
` + long.String() + `--- FAIL: TestA (2.00s)
    --- FAIL: TestA/step (1.00s)
FAIL
FAIL	example/a	2.1s
=== RUN   TestB
panic: test timed out after 1m0s`
	var got, brief strings.Builder
	if err := failures(&got, &brief, strings.NewReader(log)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(got.String(), "\n")
	if len(lines) != 1+1+most+1+2+2+1 || lines[0] != "--- FAIL: TestA" || lines[1] != "    a_test.go:9: got 3, want 4"+strings.Repeat("!", 2*wide) || lines[1+most] != fmt.Sprintf("        line %d.", 2*most-1) {
		t.Errorf("got %q, want the message and the last %d lines of TestA first", lines, most)
	}
	const end = "--- FAIL: TestA/step\n    a_test.go:7: got 1, want 2\n        of 3\nFAIL\texample/a\t2.1s\npanic: test timed out after 1m0s\n"
	if !strings.HasSuffix(got.String(), end) {
		t.Errorf("got %q, want it to end with %q", got.String(), end)
	}
	first := "    a_test.go:9: got 3, want 4" + strings.Repeat("!", 2*wide)
	if want := "--- FAIL: TestA\n" + first[:wide] + "\n--- FAIL: TestA/step\n    a_test.go:7: got 1, want 2\nFAIL\texample/a\t2.1s\npanic: test timed out after 1m0s\n"; brief.String() != want {
		t.Errorf("in brief: got %q, want %q", brief.String(), want)
	}
}

func TestMissingLog(t *testing.T) {
	if err := one(&strings.Builder{}, &strings.Builder{}, t.TempDir()+"/none"); err == nil {
		t.Error("got no error for a log that is not there")
	}
}
