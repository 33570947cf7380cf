package desk

import (
	"context"
	"flag"
	"fmt"
	"strings"
)

func completionCommand() command {
	return command{
		name: "completion", args: "bash|zsh|fish", min: 1, max: 1, short: "print a shell's completion for this program", words: []string{"bash", "zsh", "fish"},
		long: "Prints a script that makes the shell complete commands, flags and files. It is made of the same table as the help.",
		examples: []string{"source <(release completion bash)", "release completion zsh > ~/.zfunc/_release",
			"release completion fish > ~/.config/fish/completions/release.fish"},
		setup: func(*common, *flag.FlagSet) action {
			return func(_ context.Context, args []string) (*result, error) {
				scripts := map[string]func([]command) string{"bash": bash, "zsh": zsh, "fish": fish}
				script, ok := scripts[args[0]]
				if !ok {
					return nil, fmt.Errorf("completion: unknown shell %q: expected bash, zsh or fish: %w", args[0], errUsage)
				}
				all := commands()
				names := []string{}
				for _, c := range all {
					names = append(names, c.name)
				}
				text := script(append(all, command{name: "help", short: "print a command's manual page", words: names}))
				return &result{json: map[string]string{"script": text}, text: text}, nil
			}
		},
	}
}

// flagNames are the command's flags as they are typed.
func (c command) flagNames() (names []string) {
	if c.setup == nil {
		return nil
	}
	c.flags().VisitAll(func(f *flag.Flag) { names = append(names, "--"+f.Name) })
	return names
}

// bash completes the command, then its fixed words or else files; after a hyphen, its flags.
func bash(all []command) string {
	var b strings.Builder
	var names []string
	for _, c := range all {
		names = append(names, c.name)
	}
	fmt.Fprintf(&b, `_release() {
    local cur=${COMP_WORDS[COMP_CWORD]} flags= words=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W %q -- "$cur")
        return
    fi
    case ${COMP_WORDS[1]} in
`, strings.Join(names, " "))
	for _, c := range all {
		fmt.Fprintf(&b, "    %s) flags=%q words=%q ;;\n", c.name, strings.Join(c.flagNames(), " "), strings.Join(c.words, " "))
	}
	b.WriteString(`    esac
    case $cur in
    -*) mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur") ;;
    *)
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        [ ${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        ;;
    esac
}
complete -o filenames -F _release release
`)
	return b.String()
}

func zsh(all []command) string {
	var b strings.Builder
	b.WriteString("#compdef release\n_release() {\n    local -a commands\n    commands=(\n")
	for _, c := range all {
		fmt.Fprintf(&b, "        %s\n", quote(c.name+":"+c.short))
	}
	b.WriteString("    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n        return\n    fi\n" +
		"    local command=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $command in\n")
	for _, c := range all {
		fmt.Fprintf(&b, "    %s)\n        _arguments", c.name)
		if c.setup != nil {
			c.flags().VisitAll(func(f *flag.Flag) {
				meta, usage := flag.UnquoteUsage(f)
				spec := fmt.Sprintf("--%s[%s]", f.Name, strings.NewReplacer("[", "(", "]", ")", ":", "\\:").Replace(usage))
				if meta != "" {
					spec += ":" + meta + ":_files"
				}
				fmt.Fprintf(&b, " \\\n            %s", quote(spec))
			})
		}
		rest := "*:argument:_files"
		if len(c.words) > 0 {
			rest = "*:argument:(" + strings.Join(c.words, " ") + ")"
		}
		fmt.Fprintf(&b, " \\\n            %s ;;\n", quote(rest))
	}
	b.WriteString("    esac\n}\n_release \"$@\"\n")
	return b.String()
}

func fish(all []command) string {
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, "complete -c release -n __fish_use_subcommand -f -a %s -d %s\n", c.name, quote(c.short))
		seen := quote("__fish_seen_subcommand_from " + c.name)
		if c.setup != nil {
			c.flags().VisitAll(func(f *flag.Flag) {
				meta, usage := flag.UnquoteUsage(f)
				value := ""
				if meta != "" {
					value = " -r"
				}
				fmt.Fprintf(&b, "complete -c release -n %s -l %s%s -d %s\n", seen, f.Name, value, quote(usage))
			})
		}
		if len(c.words) > 0 {
			fmt.Fprintf(&b, "complete -c release -n %s -f -a %s\n", seen, quote(strings.Join(c.words, " ")))
		}
	}
	return b.String()
}

// quote quotes for a POSIX shell, which is right for zsh and fish as well as long as there is no backslash.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
