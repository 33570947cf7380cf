package journal

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/proa-os/proa/internal/testenv"
)

const catalog = "../../manifests/files/usr/lib/systemd/catalog/proa.catalog"

type sent struct {
	message string
	p       journal.Priority
	fields  map[string]string
}

func TestHandler(t *testing.T) {
	var got []sent
	var out bytes.Buffer
	h := New(&out)
	h.send = func(m string, p journal.Priority, f map[string]string) error {
		got = append(got, sent{m, p, f})
		return nil
	}
	log := slog.New(h).With("running", "1.0.0")
	log.Info("release armed", "version", "1.0.1", "root_hash", "abc", "reason", "")
	log.Error("release bad, but there is no other to go back to", "reason", errors.New("two\nlines \xff"))
	log.Warn("nobody knows this one")
	if len(got) != 3 || out.Len() != 0 {
		t.Fatalf("got %+v, and %q beside the journal", got, &out)
	}
	want := map[string]string{"SYSLOG_IDENTIFIER": "update-engine", "PROA_RUNNING": "1.0.0", "PROA_VERSION": "1.0.1", "PROA_ROOT_HASH": "abc", "PROA_REASON": "", "MESSAGE_ID": h.known["release armed"].ID}
	if got[0].message != "release armed running=1.0.0 version=1.0.1 root_hash=abc" || got[0].p != journal.PriInfo || !maps.Equal(got[0].fields, want) {
		t.Errorf("got %+v, want %v", got[0], want)
	}
	if got[1].p != journal.PriErr || !strings.HasSuffix(got[1].message, `reason="two lines ?"`) {
		t.Errorf("got %+v", got[1])
	}
	if got[2].p != journal.PriWarning || got[2].fields["MESSAGE_ID"] != "" {
		t.Errorf("got %+v", got[2])
	}
	h.send = func(string, journal.Priority, map[string]string) error { return errors.New("no journal") }
	log = slog.New(h)
	log.Info("release good", "version", "1.0.1")
	if out.String() != "release good version=1.0.1\n" {
		t.Errorf("without a journal: %q", &out)
	}
}

// Everything that the agent and its programs log is a known message, and every known message is logged.
func TestMessagesAreWhole(t *testing.T) {
	known := map[string]bool{} // and whether it is logged
	ids := map[string]bool{}
	for _, m := range Messages() {
		if _, twice := known[m.Text]; twice || ids[m.ID] || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(m.ID) {
			t.Errorf("%+v: twice, or no ID", m)
		}
		known[m.Text], ids[m.ID] = false, true
	}
	for _, dir := range []string{"../agent", "../cmd/update-engine"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				text, ok := logged(n)
				if !ok {
					return true
				}
				if _, ok := known[text]; !ok {
					t.Errorf("%s logs %q, which has no MESSAGE_ID: add it to Messages and to %s", name, text, catalog)
				}
				known[text] = true
				return true
			})
		}
	}
	for text, used := range known {
		if !used {
			t.Errorf("nobody logs %q", text)
		}
	}
}

// Alarms are set on MESSAGE_IDs: one that was given stays with its message, whatever becomes of its text. testdata/ids has them as they were
// given, and is only ever added to.
func TestIDsStay(t *testing.T) {
	given, err := os.ReadFile("testdata/ids")
	if err != nil {
		t.Fatal(err)
	}
	now := map[string]bool{}
	for _, m := range Messages() {
		now[m.ID] = true
		if !strings.Contains("\n"+string(given), "\n"+m.ID+" ") {
			t.Errorf("add %q to testdata/ids: %s", m.Text, m.ID)
		}
	}
	for line := range strings.Lines(string(given)) {
		if id, text, _ := strings.Cut(line, " "); !now[id] {
			t.Errorf("the MESSAGE_ID %s of %q is gone: whoever waits for it waits for ever", id, strings.TrimSpace(text))
		}
	}
}

// logged returns the text of a call such as a.Log.Info("text", ...).
func logged(n ast.Node) (string, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return "", false
	}
	level, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || level.Sel.Name != "Info" && level.Sel.Name != "Warn" && level.Sel.Name != "Error" {
		return "", false
	}
	log, ok := level.X.(*ast.SelectorExpr)
	if !ok || log.Sel.Name != "Log" {
		return "", false
	}
	if lit, ok := call.Args[0].(*ast.BasicLit); ok {
		if text, err := strconv.Unquote(lit.Value); err == nil {
			return text, true
		}
	}
	return "a text that is put together", true
}

// The catalog explains every message and nothing else, and journalctl reads it.
func TestCatalog(t *testing.T) {
	b, err := os.ReadFile(catalog)
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^-- ([0-9a-f]{32})\nSubject: (.+)\nDefined-By: Proa\n(?:[A-Z].*\n)*\n(.+)`).FindAllStringSubmatch(string(b), -1) {
		explained[m[1]] = true
	}
	for _, m := range Messages() {
		if !explained[m.ID] {
			t.Errorf("%s (%s) is not explained", m.ID, m.Text)
		}
		delete(explained, m.ID)
	}
	for id := range explained {
		t.Errorf("%s is explained and not used", id)
	}
	journalctl, err := exec.LookPath("journalctl")
	if err != nil {
		testenv.Missing(t, "in a journal's catalog: %v", err)
	}
	root := t.TempDir()
	dir := filepath.Join(root, "usr/lib/systemd/catalog")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Join(root, "var/lib/systemd/catalog"), 0o755), os.WriteFile(filepath.Join(dir, "proa.catalog"), b, 0o644)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(journalctl, "--root", root, "--update-catalog").CombinedOutput(); err != nil {
		t.Fatalf("journalctl --update-catalog: %v: %s", err, out)
	}
	out, err := exec.Command(journalctl, "--root", root, "--list-catalog").CombinedOutput()
	if n := strings.Count(string(out), "Proa: "); err != nil || n != len(Messages()) {
		t.Errorf("journalctl knows %d of %d messages, %v:\n%s", n, len(Messages()), err, out)
	}
}
