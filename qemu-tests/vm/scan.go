package vm

import (
	"fmt"
	"regexp"
	"strings"
)

// A Finding is a console or journal line that a healthy machine does not print.
type Finding struct {
	Source string // "console of boot 2", "journal"
	Text   string
	Rule   string // what the line is taken for
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Source, f.Rule, f.Text) }

// An Allowance lets lines pass that match Pattern; Reason says why that is right.
type Allowance struct {
	Pattern *regexp.Regexp
	Reason  string
}

// Allow makes an Allowance; pattern is a regular expression that must compile.
func Allow(pattern, reason string) Allowance {
	return Allowance{regexp.MustCompile(pattern), reason}
}

// AllowPanic is for a story in which the kernel panics on purpose: the panic itself and its traces.
func AllowPanic(reason string) []Allowance {
	return []Allowance{
		Allow(`Kernel panic - not syncing|---\[ end Kernel panic`, reason),
		Allow(`Call Trace:|^(\[[^]]*\] )?(Oops|BUG):`, reason),
	}
}

// rule is one kind of line that makes a machine unclean.
type rule struct {
	name string
	re   *regexp.Regexp
}

// scanRules are looked at in order, the first that matches names the finding.
func scanRules() []rule {
	r := func(name, re string) rule { return rule{name, regexp.MustCompile(re)} }
	return []rule{
		r("kernel panic", `(?i)\bpanic\b([^+]|$)`), // panic+0x118/0x2db is a frame of a trace, which has its own rule
		r("kernel bug", `\bBUG: |kernel BUG at|\bOops\b|general protection fault|unable to handle (kernel|page)|double fault|stack segment:|Internal error: |SError Interrupt|\bUBSAN: `),
		r("call trace", `Call [Tt]race:`),
		r("kernel warning", `\bWARNING: |cut here \]---`),
		r("lock-up", `soft lockup|hard LOCKUP|blocked for more than \d+ seconds|rcu.*(detected|self-detected) stall|clocksource.*unstable`),
		r("out of memory", `Out of memory|invoked oom-killer|Killed process`),
		r("crash", `segfault at |\btraps: .* trap |(core-dump|code=dumped|status=\d+/(SEGV|ABRT|BUS|ILL|SYS))|(^|: )(goroutine \d+ \[running\]|fatal error: |SIGSEGV: )`),
		r("storage error", `I/O error|EXT4-fs (error|warning)|EROFS.*(error|corrupt)|[Bb]uffer I/O|device-mapper: .*([Ee]rror|corrupt)|(data|metadata) block \d+ is corrupted|dm-verity.*(fail|corrupt)|(XFS|BTRFS|FAT-fs) .*(error|[Cc]orruption)|Remounting filesystem read-only|Aborting journal|critical (medium|target) error|nvme.*(timeout, |controller is down)|\bata\d.*(failed command|exception Emask)|FAILED Result: hostbyte`),
		r("failed unit", `^(.*\bsystemd\[\d+\]: )?(\[ *FAILED *\]|\[ *DEPEND *\])|Failed to start |Failed to mount |Failed with result |Dependency failed for `),
		r("ordering cycle", `(?i)ordering cycle|deleted to break|order is cyclic|cyclic dependency`),
		r("time-out", `Timed out waiting for device|Job .* timed out|\[ *TIME *\]|start operation timed out|State '[\w-]+' timed out|Watchdog timeout`),
		r("denial", `(?i)\bdenied\b|apparmor="DENIED"|Operation not permitted|audit: type=1326 |lockdown: .* is restricted|module verification failed|key is rejected`),
		r("bad unit", `Unknown (key|section)( name)? '|Unknown lvalue|Unit configuration has fatal error|is not executable|Failed to (parse|resolve) (unit|specifiers)|bad unit file setting|Cannot add dependency job|is marked world-(writable|inaccessible)`),
		r("stuck system", `Freezing execution|still around after SIGKILL|You are in (rescue|emergency) mode|Cannot open access to console`),
	}
}

// A setting such as `panic=10` names an event that did not happen.
var settingRE = regexp.MustCompile(`\b[\w.]*panic\w*=\S*`)

// Lines that repeat the kernel command line say nothing about what happened.
var cmdlineRE = regexp.MustCompile(`(?i)command line:|unknown kernel command line parameters`)

// commonAllowances hold for every machine of the lab.
func commonAllowances() []Allowance {
	return []Allowance{
		Allow(`ima: .*TPM.*bypass|No TPM chip found`, "the lab's machines have no TPM"),
		Allow(`Warning: Permanently added`, "an ssh client learns a host key"),
		Allow(`sshd-session\[\d+\]: fatal: .*(Broken pipe|Connection reset by peer)`, "the harness gives up a login that a busy host does not answer in time"),
		Allow(`systemd\[1\]: \S+: Unexpected error response .*: Connection terminated`, "PID 1 gives up a bus that a busy host does not let answer within 25 s, and connects anew"),
	}
}

// Scan returns the lines that are unclean and that no allowance covers. Lines that only repeat the kernel command
// line are passed over.
func Scan(source string, lines []string, allow ...Allowance) []Finding {
	var found []Finding
	rules := scanRules()
	allow = append(commonAllowances(), allow...)
	for _, text := range lines {
		if name := match(rules, text); name != "" && !allowed(allow, text) {
			found = append(found, Finding{source, strings.TrimSpace(text), name})
		}
	}
	return found
}

func match(rules []rule, text string) string {
	if cmdlineRE.MatchString(text) {
		return ""
	}
	text = settingRE.ReplaceAllString(text, "")
	for _, r := range rules {
		if r.re.MatchString(text) {
			return r.name
		}
	}
	return ""
}

func allowed(allow []Allowance, text string) bool {
	for _, a := range allow {
		if a.Pattern.MatchString(text) {
			return true
		}
	}
	return false
}

// scanConsole scans finished console lines.
func scanConsole(lines []Line, allow ...Allowance) []Finding {
	var found []Finding
	for _, l := range lines {
		found = append(found, Scan(fmt.Sprintf("console of boot %d", l.Boot), []string{l.Text}, allow...)...)
	}
	return found
}
