package command

import (
	"context"
	"fmt"
	"io"
	"strings"
)

func (p Program) completionCommand() Command {
	return Command{
		Name: "completion", Args: "bash|zsh|fish", Min: 1, Max: 1, Short: "print a shell's completion for this program", Words: []string{"bash", "zsh", "fish"},
		Long: "Prints a script that makes the shell complete commands, flags and files. It is made of the same table as the help.",
		Examples: []string{"source <(" + p.Name + " completion bash)", p.Name + " completion zsh > ~/.zfunc/_" + p.Name,
			p.Name + " completion fish > ~/.config/fish/completions/" + p.Name + ".fish"},
		Setup: nothing,
	}
}

// completion prints a script.
func (p Program) completion(_ context.Context, out io.Writer, args []string) error {
	if len(args) == 1 && isHelp(args[0]) {
		return p.help(out, []string{"completion"})
	}
	if len(args) != 1 {
		return Wrong("completion: got %d arguments; usage: %s", len(args), p.synopsis(p.completionCommand()))
	}
	scripts := map[string]func() string{"bash": p.bash, "zsh": p.zsh, "fish": p.fish}
	script, ok := scripts[args[0]]
	if !ok {
		return Wrong("completion: unknown shell %q: expected bash, zsh or fish", args[0])
	}
	_, err := io.WriteString(out, script())
	return err
}

// function is the program's name as part of a shell function's.
func (p Program) function() string { return "_" + strings.ReplaceAll(p.Name, "-", "_") }

// flagNames are the command's flags as they are typed.
func (c Command) flagNames() (names []string) {
	for _, f := range c.Options() {
		names = append(names, f.Names...)
	}
	return names
}

// lister is the shell's text that has the command's lister run, if it has one.
func lister(c Command, format string) string {
	if c.Lister == "" {
		return ""
	}
	return fmt.Sprintf(format, c.Lister)
}

// bash completes the command, then its fixed words or else files, or both; after a hyphen, its flags.
func (p Program) bash() string {
	var b strings.Builder
	fmt.Fprintf(&b, `%s() {
    local cur=${COMP_WORDS[COMP_CWORD]} flags= words= files=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W %q -- "$cur")
        return
    fi
    case ${COMP_WORDS[1]} in
`, p.function(), strings.Join(names(p.All()), " "))
	for _, c := range p.shown() {
		files := ""
		if c.Files {
			files = " files=too"
		}
		fmt.Fprintf(&b, "    %s) flags=%q words=%q%s%s ;;\n", c.Name, strings.Join(c.flagNames(), " "), strings.Join(c.Words, " "), lister(c, "$(%s 2>/dev/null)"), files)
	}
	fmt.Fprintf(&b, `    esac
    case $cur in
    -*) mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur") ;;
    *)
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        [ ${#COMPREPLY[@]} -gt 0 ] && [ -z "$files" ] || mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$cur")
        ;;
    esac
}
complete -o filenames -F %s %s
`, p.function(), p.Name)
	return b.String()
}

func (p Program) zsh() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n%s() {\n    local -a commands\n    commands=(\n", p.Name, p.function())
	for _, c := range p.shown() {
		fmt.Fprintf(&b, "        %s\n", quote(c.Name+":"+c.Short))
	}
	b.WriteString("    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n        return\n    fi\n" +
		"    local command=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $command in\n")
	for _, c := range p.shown() {
		fmt.Fprintf(&b, "    %s)\n        _arguments", c.Name)
		for _, f := range c.Options() {
			for _, name := range f.Names {
				spec := fmt.Sprintf("%s[%s]", name, strings.NewReplacer("[", "(", "]", ")", ":", "\\:").Replace(f.Usage))
				if f.Meta != "" {
					spec += ":" + strings.NewReplacer(":", "\\:").Replace(f.Meta) + ":_files"
				}
				fmt.Fprintf(&b, " \\\n            %s", quote(spec))
			}
		}
		rest := "*:argument:_files"
		switch {
		case c.Lister != "":
			rest = "*:argument:{compadd -- " + strings.Join(c.Words, " ") + lister(c, " $(%s 2>/dev/null)") + "}"
		case c.Files:
			rest = "*:argument:{_alternative \"word:argument:(" + strings.Join(c.Words, " ") + ")\" \"file:file:_files\"}"
		case len(c.Words) > 0:
			rest = "*:argument:(" + strings.Join(c.Words, " ") + ")"
		}
		fmt.Fprintf(&b, " \\\n            %s ;;\n", quote(rest))
	}
	fmt.Fprintf(&b, "    esac\n}\n%s \"$@\"\n", p.function())
	return b.String()
}

func (p Program) fish() string {
	var b strings.Builder
	for _, c := range p.shown() {
		fmt.Fprintf(&b, "complete -c %s -n __fish_use_subcommand -f -a %s -d %s\n", p.Name, c.Name, quote(c.Short))
		seen := quote("__fish_seen_subcommand_from " + c.Name)
		for _, f := range c.Options() {
			value := ""
			if f.Meta != "" {
				value = " -r"
			}
			var names string
			for _, name := range f.Names {
				if long, ok := strings.CutPrefix(name, "--"); ok {
					names += " -l " + long
				} else {
					names += " -s " + name[1:]
				}
			}
			fmt.Fprintf(&b, "complete -c %s -n %s%s%s -d %s\n", p.Name, seen, names, value, quote(f.Usage))
		}
		if len(c.Words) > 0 || c.Lister != "" {
			only := " -f"
			if c.Files {
				only = ""
			}
			fmt.Fprintf(&b, "complete -c %s -n %s%s -a %s\n", p.Name, seen, only, quote(strings.Join(c.Words, " ")+lister(c, "(%s 2>/dev/null)")))
		}
	}
	return b.String()
}

// quote quotes for a POSIX shell, which is right for zsh and fish as well as long as there is no backslash.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
