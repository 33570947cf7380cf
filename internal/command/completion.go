package command

import (
	"context"
	"flag"
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
	c.Flags().VisitAll(func(f *flag.Flag) { names = append(names, "--"+f.Name) })
	return names
}

// bash completes the command, then its fixed words or else files; after a hyphen, its flags.
func (p Program) bash() string {
	var b strings.Builder
	var names []string
	for _, c := range p.All() {
		names = append(names, c.Name)
	}
	fmt.Fprintf(&b, `%s() {
    local cur=${COMP_WORDS[COMP_CWORD]} flags= words=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W %q -- "$cur")
        return
    fi
    case ${COMP_WORDS[1]} in
`, p.function(), strings.Join(names, " "))
	for _, c := range p.All() {
		fmt.Fprintf(&b, "    %s) flags=%q words=%q ;;\n", c.Name, strings.Join(c.flagNames(), " "), strings.Join(c.Words, " "))
	}
	fmt.Fprintf(&b, `    esac
    case $cur in
    -*) mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur") ;;
    *)
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        [ ${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- "$cur")
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
	for _, c := range p.All() {
		fmt.Fprintf(&b, "        %s\n", quote(c.Name+":"+c.Short))
	}
	b.WriteString("    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n        return\n    fi\n" +
		"    local command=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $command in\n")
	for _, c := range p.All() {
		fmt.Fprintf(&b, "    %s)\n        _arguments", c.Name)
		c.Flags().VisitAll(func(f *flag.Flag) {
			meta, usage := flag.UnquoteUsage(f)
			spec := fmt.Sprintf("--%s[%s]", f.Name, strings.NewReplacer("[", "(", "]", ")", ":", "\\:").Replace(usage))
			if meta != "" {
				spec += ":" + meta + ":_files"
			}
			fmt.Fprintf(&b, " \\\n            %s", quote(spec))
		})
		rest := "*:argument:_files"
		if len(c.Words) > 0 {
			rest = "*:argument:(" + strings.Join(c.Words, " ") + ")"
		}
		fmt.Fprintf(&b, " \\\n            %s ;;\n", quote(rest))
	}
	fmt.Fprintf(&b, "    esac\n}\n%s \"$@\"\n", p.function())
	return b.String()
}

func (p Program) fish() string {
	var b strings.Builder
	for _, c := range p.All() {
		fmt.Fprintf(&b, "complete -c %s -n __fish_use_subcommand -f -a %s -d %s\n", p.Name, c.Name, quote(c.Short))
		seen := quote("__fish_seen_subcommand_from " + c.Name)
		c.Flags().VisitAll(func(f *flag.Flag) {
			meta, usage := flag.UnquoteUsage(f)
			value := ""
			if meta != "" {
				value = " -r"
			}
			fmt.Fprintf(&b, "complete -c %s -n %s -l %s%s -d %s\n", p.Name, seen, f.Name, value, quote(usage))
		})
		if len(c.Words) > 0 {
			fmt.Fprintf(&b, "complete -c %s -n %s -f -a %s\n", p.Name, seen, quote(strings.Join(c.Words, " ")))
		}
	}
	return b.String()
}

// quote quotes for a POSIX shell, which is right for zsh and fish as well as long as there is no backslash.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
