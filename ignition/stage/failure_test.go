package stage

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/config"
)

// console is a terminal of 80 columns that wraps as soon as a row is full: how many rows were written to, the cursor's included.
func console(text string) int {
	row, column := 1, 0
	for _, r := range text {
		if r == '\n' {
			row, column = row+1, 0
			continue
		}
		if column++; column == 80 {
			row, column = row+1, 0
		}
	}
	return row
}

// The screen is one: whatever went wrong, its head is not scrolled off, and the next step is there.
func TestOneScreen(t *testing.T) {
	unknownKeys := func(n int) error {
		users := slices.Repeat([]string{`{"name":"a","passwordhash":"x"}`}, n)
		for i := range users {
			users[i] = strings.Replace(users[i], `"a"`, fmt.Sprintf(`"user%d"`, i), 1)
		}
		_, err := config.Load(t.Context(), "fw_cfg opt/com.coreos/config", []byte(`{"ignition":{"version":"3.4.0"},"passwd":{"users":[`+strings.Join(users, ",")+`]}}`), nil)
		return err
	}
	long := strings.Repeat("long ", 200)
	all := config.Issue{Place: config.Place{Config: long, Path: long, Line: 1, Column: 2}, Problem: long, Expected: long, Found: long, Next: "do this"}
	short := config.Issue{Place: config.Place{Config: "c.ign", Path: "a", Line: 1, Column: 2}, Problem: "p", Next: "do that"}
	for name, tt := range map[string]struct {
		err  error
		want []string
	}{
		"one unknown key":    {unknownKeys(1), []string{"passwd.users[0].passwordhash\n", `did you mean "passwordHash"?`}},
		"two unknown keys":   {unknownKeys(2), []string{"passwd.users[0].passwordhash\n", "... and 1 more: `ignition check` on the config shows all\n"}},
		"fifty unknown keys": {unknownKeys(50), []string{"passwd.users[0].passwordhash\n", "... and 49 more: `ignition check` on the config shows all\n"}},
		"two short ones":     {config.Issues{short, short}, []string{"do that\n\n  config:"}},
		"three short ones":   {config.Issues{short, short, short}, []string{"do that\n\n  config:", "... and 1 more: "}},
		"everything long":    {config.Issues{all}, []string{"  problem:   long", "  expected:  long", "  found:     long", "  next step: do this\n", "... `ignition check` on the config has all of it\n"}},
		"long ones":          {config.Issues{all, all}, []string{"  next step: do this\n", "... and 1 more: "}},
		"a wide script":      {config.Issues{{Place: all.Place, Problem: strings.Repeat("長", 1000), Found: strings.Repeat("長", 1000), Next: strings.Repeat("長", 1000)}}, []string{"  next step: 長"}},
		"full rows":          {config.Issues{{Problem: strings.Repeat("x", 80-13), Expected: strings.Repeat("x", 80-13), Found: strings.Repeat("x", 80-13), Next: strings.Repeat("x", 80-13)}}, nil},
		"a problem":          {apply.NewProblem(long, long, long, long), []string{"  next step: long", "... the journal has all of it\n"}},
		"another error":      {errors.New(strings.Repeat(long, 10)), []string{"  problem:   long", "  next step: correct what is named here"}},
	} {
		t.Run(name, func(t *testing.T) {
			screen := Screen(details(tt.err))
			if n := console(screen); n > 25 {
				t.Errorf("takes %d rows", n)
			}
			for _, want := range tt.want {
				if !strings.Contains(screen, want) {
					t.Errorf("want %q", want)
				}
			}
			if t.Failed() {
				t.Log(screen)
			}
		})
	}
}
