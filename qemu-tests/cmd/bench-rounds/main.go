// Bench-rounds carries out a plan of package rounds, JSON on standard input, and prints its samples as JSON. bench-run copies it to a machine.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/proa-os/proa/qemu-tests/bench/rounds"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-rounds:", err)
		os.Exit(1)
	}
}

func run() error {
	var p rounds.Plan
	if err := json.NewDecoder(os.Stdin).Decode(&p); err != nil {
		return err
	}
	s, err := rounds.Run(p)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}
