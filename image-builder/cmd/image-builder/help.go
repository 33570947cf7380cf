package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

func printUsage(w io.Writer) {
	fmt.Fprint(w, "usage: image-builder COMMAND [FLAGS] [ARGUMENTS]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.short)
	}
	fmt.Fprint(w, "\nimage-builder help COMMAND is a command's manual page. Packages, tools and finished stages are kept in $PROA_CACHE,\nby default proa in the user's cache directory.\n")
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
	section(w, "NAME", fmt.Sprintf("image-builder %s - %s", c.name, c.short))
	section(w, "SYNOPSIS", c.synopsis())
	section(w, "DESCRIPTION", c.long)
	var b strings.Builder
	c.flags().VisitAll(func(f *flag.Flag) {
		meta, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, "--%s\n    %s", strings.TrimSpace(f.Name+" "+strings.ToUpper(meta)), usage)
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(&b, " (default %s)", f.DefValue)
		}
		b.WriteString("\n")
	})
	section(w, "OPTIONS", b.String())
	section(w, "EXAMPLES", strings.Join(c.examples, "\n"))
	section(w, "EXIT STATUS", strings.TrimSpace("0 if all went well, 1 after an error. "+c.exits))
	section(w, "ENVIRONMENT", "PROA_CACHE\n    directory of packages, tools and stages (default: proa in the user's cache directory)\nPROA_MIRROR, PROA_SECURITY_MIRROR\n    the Debian mirrors, where no flag names them")
	return nil
}

// flags returns the command's flags, for reading only.
func (c command) flags() *flag.FlagSet {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	c.setup(&common{}, flags)
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
		if !strings.Contains(paragraph, "  ") && !strings.HasPrefix(paragraph, "image-builder") {
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
