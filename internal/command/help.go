package command

import (
	"fmt"
	"io"
	"strings"
)

func (p Program) usage(w io.Writer) error {
	var b strings.Builder
	wide := 11
	for _, c := range p.shown() {
		wide = max(wide, len(c.Name))
	}
	fmt.Fprintf(&b, "usage: %s COMMAND [FLAGS] [ARGUMENTS]\n\n", p.Name)
	for _, c := range p.shown() {
		fmt.Fprintf(&b, "  %-*s %s\n", wide, c.Name, c.Short)
	}
	fmt.Fprintf(&b, "\n%s help COMMAND is a command's manual page.", p.Name)
	if p.Footer != "" {
		b.WriteString(" " + p.Footer)
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// help prints the manual page of a command, or the list of commands.
func (p Program) help(w io.Writer, args []string) error {
	if len(args) == 0 {
		return p.usage(w)
	}
	c, err := p.find(args[0])
	if err != nil {
		return err
	}
	var b strings.Builder
	p.section(&b, "NAME", fmt.Sprintf("%s %s - %s", p.Name, c.Name, c.Short))
	p.section(&b, "SYNOPSIS", p.synopsis(c))
	p.section(&b, "DESCRIPTION", c.Long)
	var options strings.Builder
	for _, f := range c.Options() {
		fmt.Fprintf(&options, "%s\n    %s", strings.TrimSpace(strings.Join(f.Names, ", ")+" "+strings.ToUpper(f.Meta)), f.Usage)
		if f.Default != "" && !strings.Contains(f.Usage, "(default") {
			fmt.Fprintf(&options, " (default %s)", f.Default)
		}
		options.WriteString("\n")
	}
	p.section(&b, "OPTIONS", options.String())
	p.section(&b, "EXAMPLES", strings.Join(c.Examples, "\n"))
	p.section(&b, "EXIT STATUS", strings.TrimSpace(p.Exits+" "+c.Exits))
	for _, s := range p.Sections {
		p.section(&b, s[0], s[1])
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// isZero reports whether a default is the zero value of its type, which usages need not speak of.
func isZero(value string) bool {
	return value == "" || value == "false" || value == "0" || value == "0s"
}

// Width is what a line of a manual page has at the most, its margin included.
const Width = 80

// section prints a heading and its text, unless there is none. A paragraph is filled; one with columns in it, or with an indented line, keeps its lines.
func (p Program) section(w *strings.Builder, title, text string) {
	if strings.TrimSpace(text) == "" {
		return
	}
	fmt.Fprintln(w, title)
	for paragraph := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		lines := strings.Split(paragraph, "\n")
		if !strings.Contains(paragraph, "  ") && !strings.HasPrefix(paragraph, p.Name) {
			lines = []string{strings.Join(lines, " ")}
		}
		for _, line := range lines {
			fill(w, line)
		}
		fmt.Fprintln(w)
	}
}

// fill prints a line in as many as it needs, all with its indentation.
func fill(w *strings.Builder, line string) {
	text := strings.TrimLeft(line, " ")
	margin := strings.Repeat(" ", 4+len(line)-len(text))
	for len(margin)+len(text) > Width {
		at := strings.LastIndexByte(text[:Width-len(margin)+1], ' ')
		if at < 0 {
			break
		}
		fmt.Fprintf(w, "%s%s\n", margin, text[:at])
		text = text[at+1:]
	}
	fmt.Fprintf(w, "%s%s\n", margin, text)
}
