package judge

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// copySource makes a copy of a suite's repository: the newest commit of a git directory, or a folder as it is.
func copySource(ctx context.Context, from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, git := range []string{from, filepath.Join(from, ".git"), filepath.Join(from, "repo"), filepath.Join(from, "repo/.git")} {
		if _, err := os.Stat(filepath.Join(git, "objects")); err != nil {
			continue
		}
		return run(ctx, to, nil, "sh", "-c", `git --git-dir="$1" archive HEAD | tar x`, "sh", git)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

// run runs a program; what it says is in the error.
func run(ctx context.Context, dir string, env []string, program string, args ...string) error {
	c := exec.CommandContext(ctx, program, args...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, out[max(0, len(out)-2000):])
	}
	return nil
}

// need looks for programs that a suite uses.
func need(programs ...string) error {
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if missing != nil {
		return fmt.Errorf("look for the suite's programs: %s missing: install them", strings.Join(missing, ", "))
	}
	return nil
}

// buildRunc builds the test programs of runc's suite, and runc, which makes configurations. It reports whether there is a seccomp
// agent, which takes libseccomp's headers.
func buildRunc(ctx context.Context, dir, scripts string) (agent bool, err error) {
	vendored := []string{"GOFLAGS=-mod=vendor", "CGO_ENABLED=1"}
	if err := run(ctx, dir, vendored, "go", "build", "-o", filepath.Join(scripts, "suite-runc"), "."); err != nil {
		return false, err
	}
	bin := filepath.Join(dir, "tests/cmd/_bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return false, err
	}
	programs, err := os.ReadDir(filepath.Join(dir, "tests/cmd"))
	if err != nil {
		return false, err
	}
	for _, p := range programs {
		if !p.IsDir() || p.Name() == "_bin" {
			continue
		}
		args := []string{"build", "-o", bin}
		if p.Name() == "seccompagent" {
			args = append(args, "-tags", "seccomp")
		}
		if err := run(ctx, dir, vendored, "go", append(args, "./tests/cmd/"+p.Name())...); err != nil {
			if p.Name() != "seccompagent" {
				return false, err
			}
			continue
		}
		agent = agent || p.Name() == "seccompagent"
	}
	return agent, nil
}

// packBusybox makes the image that nearly all tests of runc's suite start from: a static busybox with its links.
func packBusybox(ctx context.Context, image string) error {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	if dynamic, err := interpreted(program); err != nil {
		return fmt.Errorf("pack busybox: read %s: %w", program, err)
	} else if dynamic {
		return fmt.Errorf("pack busybox: %s is not static: install busybox-static", program)
	}
	root, err := os.MkdirTemp(filepath.Dir(image), "busybox")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := layOut(root, "bin", "dev", "etc", "home", "lib", "root", "tmp", "usr", "var"); err != nil {
		return err
	}
	if err := copyProgram(program, filepath.Join(root, "bin/busybox")); err != nil {
		return err
	}
	names, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return fmt.Errorf("list busybox's programs: %w", err)
	}
	for _, n := range strings.Fields(string(names)) {
		if err := os.Link(filepath.Join(root, "bin/busybox"), filepath.Join(root, "bin", n)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	for link, to := range map[string]string{"sbin": "bin", "usr/bin": "../bin", "usr/sbin": "../bin", "lib64": "lib"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			return err
		}
	}
	return pack(ctx, root, image)
}

// packShell makes the image for tests that want bash and programs of util-linux: this machine's, with their libraries.
func packShell(ctx context.Context, image string) error {
	root, err := os.MkdirTemp(filepath.Dir(image), "shell")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := layOut(root, "dev", "etc", "home", "root", "tmp", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var", "proc", "sys", "mnt", "run"); err != nil {
		return err
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+d, filepath.Join(root, d)); err != nil {
			return err
		}
	}
	for _, name := range []string{"bash", "sh", "cat", "chmod", "chrt", "cp", "cut", "echo", "env", "false", "findmnt", "grep", "head", "id", "ionice", "ldconfig", "ln", "ls",
		"mkdir", "mount", "mv", "rm", "sed", "sleep", "sort", "stat", "test", "touch", "true", "umount", "wc"} {
		program, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("pack an image with a shell: %w", err)
		}
		if err := copyProgram(program, filepath.Join(root, "usr/bin", name)); err != nil {
			return err
		}
		libraries, _ := exec.CommandContext(ctx, "ldd", program).Output() // fails for static programs
		for _, word := range strings.Fields(string(libraries)) {
			if !filepath.IsAbs(word) {
				continue
			}
			to := filepath.Join(root, "usr", strings.TrimPrefix(word, "/usr"))
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			if err := copyProgram(word, to); err != nil {
				return err
			}
		}
	}
	return pack(ctx, root, image)
}

// layOut makes the folders of a root and its list of users.
func layOut(root string, dirs ...string) error {
	if err := os.Chmod(root, 0o755); err != nil {
		return err
	}
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	users := "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte(users), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\nnobody:x:65534:\n"), 0o644)
}

func pack(ctx context.Context, root, image string) error {
	return run(ctx, root, nil, "tar", "--owner=0", "--group=0", "-cJf", image, ".")
}

func copyProgram(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(to); err == nil && bytes.Equal(have, b) {
		return nil
	}
	return os.WriteFile(to, b, 0o755)
}

func interpreted(program string) (bool, error) {
	f, err := elf.Open(program)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true, nil
		}
	}
	return false, nil
}
