package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

const provisioningDoc = "../../../docs/provisioning.md"

var update = flag.Bool("update", false, "write testdata/docs anew")

// documented are the files that the document shows: blocks with a name behind the language.
func documented(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(provisioningDoc)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, m := range regexp.MustCompile("(?ms)^```[a-z]+ (\\S+)\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		if files[m[1]] != "" {
			t.Fatalf("%s is there twice", m[1])
		}
		files[m[1]] = m[2]
	}
	return files
}

// TestDocumentation copies every example out of docs/provisioning.md, checks it, plans it and, as root, applies it to a tree twice. What it
// plans and what the tree becomes are in testdata/docs.
func TestDocumentation(t *testing.T) {
	files := documented(t)
	dir := t.TempDir()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, files[strings.TrimPrefix(r.URL.Path, "/")])
	}))
	defer server.Close()
	var names []string
	for name, text := range files {
		text = strings.ReplaceAll(text, "https://config.example.com", server.URL)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if ext := filepath.Ext(name); ext == ".bu" || ext == ".ign" {
			names = append(names, name)
		}
	}
	if len(names) < 12 {
		t.Fatalf("found %q, want at least ten examples and what they refer to", names)
	}
	slices.Sort(names)
	t.Chdir(dir)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if out, _, err := do(t, "check", name); err != nil || out != name+": ok\n" {
				t.Fatalf("check: %v\n%s", err, out)
			}
			got, _, err := do(t, "plan", name)
			if err != nil {
				t.Fatalf("plan: %v\n%s", err, got)
			}
			golden(t, name+".plan", strings.ReplaceAll(got, server.URL, "https://config.example.com"))
			if os.Geteuid() != 0 {
				testenv.Missing(t, "as an ordinary user: applying it, files get owner 0:0")
			}
			root := baseTree(t)
			for range 2 {
				if _, log, err := do(t, "apply", "--key", "key.txt", "--root", root, name); err != nil {
					t.Fatalf("apply: %v\n%s", err, log)
				}
			}
			golden(t, name+".tree", dump(t, root))
			if out, _, err := do(t, "drift", "--root", root); err != nil {
				t.Errorf("drift: %v\n%s", err, out)
			}
		})
	}
}

// The fleet's config is the one whose hash the document shows.
func TestDocumentedHash(t *testing.T) {
	files := documented(t)
	sum := sha256.Sum256([]byte(files["base.ign"]))
	if want := "hash: sha256-" + hex.EncodeToString(sum[:]); !strings.Contains(files["fleet.bu"], want) {
		t.Errorf("fleet.bu has another hash than base.ign: want %s", want)
	}
}

// golden compares got with a file of testdata, whose directory the test may have left.
func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join(testdata, "docs", name)
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || string(want) != got {
		t.Errorf("%s (-update writes it anew): %v, got\n%s\nwant\n%s", name, err, got, want)
	}
}

// testdata is absolute: TestDocumentation works in another directory.
var testdata = func() string {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		return "testdata"
	}
	return dir
}()

// baseTree is the little of a root image that the examples build upon.
func baseTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\n", "etc/group": "root:x:0:\n", "etc/shadow": "root:*::0:99999:7:::\n", "etc/gshadow": "root:*::\n",
		"etc/issue": "Proa\n", "etc/motd": "", "bin/bash": "",
	} {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// dump writes a tree as text, without what provisioning remembers.
func dump(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == "var/lib/ignition" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%s: ", name)
		switch {
		case d.IsDir():
			fmt.Fprintf(&b, "dir %04o %d:%d\n", info.Mode().Perm(), st.Uid, st.Gid)
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(filepath.Join(root, name))
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "link %s\n", to)
		default:
			text, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "file %04o %d:%d\n", info.Mode().Perm(), st.Uid, st.Gid)
			for line := range strings.Lines(string(text)) {
				fmt.Fprintf(&b, "\t%s\n", strings.TrimSuffix(line, "\n"))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
