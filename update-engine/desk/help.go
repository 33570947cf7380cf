package desk

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

const exits = `0  done
1  an error; what it says is what to do
2  a wrong command line
3  verify found something
4  signatures of offline keys are missing`

func printUsage(w io.Writer) {
	fmt.Fprint(w, "usage: release COMMAND [FLAGS] [ARGUMENTS]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.short)
	}
	fmt.Fprint(w, "\nrelease help COMMAND is a command's manual page. All take --json and --quiet, all that write take --dry-run.\n"+
		"$PROA_REPO and $PROA_KEYS stand for --repo and --keys.\n")
}

// help prints the manual page of a command, or the list of commands.
func help(w io.Writer, args []string) error {
	if len(args) == 0 {
		printUsage(w)
		return nil
	}
	c, err := find(args[0])
	if err != nil {
		return err
	}
	section(w, "NAME", fmt.Sprintf("release %s - %s", c.name, c.short))
	section(w, "SYNOPSIS", c.synopsis())
	section(w, "DESCRIPTION", c.long)
	var b strings.Builder
	c.flags().VisitAll(func(f *flag.Flag) {
		meta, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, "--%s\n    %s", strings.TrimSpace(f.Name+" "+strings.ToUpper(meta)), usage)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && !strings.Contains(usage, "(default") {
			fmt.Fprintf(&b, " (default %s)", f.DefValue)
		}
		b.WriteString("\n")
	})
	section(w, "OPTIONS", b.String())
	section(w, "EXAMPLES", strings.Join(c.examples, "\n"))
	section(w, "EXIT STATUS", exits)
	section(w, "ENVIRONMENT", "PROA_REPO  stands for --repo\nPROA_KEYS  stands for --keys")
	return nil
}

// flags returns the command's flags, for reading only.
func (c command) flags() *flag.FlagSet {
	flags, _ := c.prepare(&common{})
	return flags
}

// width is what a line of a manual page has at the most, its margin included.
const width = 80

// section prints a heading and its text, unless there is none. A paragraph is filled; one with columns in it, or with an indented line, keeps its lines.
func section(w io.Writer, title, text string) {
	if strings.TrimSpace(text) == "" {
		return
	}
	fmt.Fprintln(w, title)
	for paragraph := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		lines := strings.Split(paragraph, "\n")
		if !strings.Contains(paragraph, "  ") && !strings.HasPrefix(paragraph, "release ") {
			lines = []string{strings.Join(lines, " ")}
		}
		for _, line := range lines {
			fill(w, line)
		}
		fmt.Fprintln(w)
	}
}

// fill prints a line in as many as it needs, all with its indentation.
func fill(w io.Writer, line string) {
	text := strings.TrimLeft(line, " ")
	margin := strings.Repeat(" ", 4+len(line)-len(text))
	for len(margin)+len(text) > width {
		at := strings.LastIndexByte(text[:width-len(margin)+1], ' ')
		if at < 0 {
			break
		}
		fmt.Fprintf(w, "%s%s\n", margin, text[:at])
		text = text[at+1:]
	}
	fmt.Fprintf(w, "%s%s\n", margin, text)
}
