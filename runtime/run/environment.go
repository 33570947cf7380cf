package run

import (
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/inroot"
)

// maxPasswd is how much of an image's /etc/passwd is read.
const maxPasswd = 1 << 20

// lastOfEach leaves the last value of each name: what programs make of two is up to each of them.
func lastOfEach(env []string) []string {
	seen := make(map[string]bool, len(env))
	out := make([]string, 0, len(env)+1)
	for _, e := range slices.Backward(env) {
		if name, _, _ := strings.Cut(e, "="); !seen[name] {
			seen[name] = true
			out = append(out, e)
		}
	}
	slices.Reverse(out)
	return out
}

// settleEnv leaves one value of each name, and gives a process without HOME, or with an empty one, the home directory of its user: that of the image's /etc/passwd, else /.
// The specification says nothing of it, but containerd and Kubernetes leave it to the runtime. root is a directory, "" for none to be found.
func settleEnv(p *specs.Process, root string) {
	const name = "HOME="
	p.Env = lastOfEach(p.Env)
	if slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, name) && e != name }) {
		return
	}
	p.Env = append(slices.DeleteFunc(p.Env, func(e string) bool { return e == name }), name+homeOf(root, p.User.UID))
}

// homeOf looks for a user in a file of the image's, which can be anything: a link that leads out, a pipe that nobody writes to, one of any size.
func homeOf(root string, uid uint32) string {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "/"
	}
	defer unix.Close(dir)
	f, err := inroot.Regular(dir, "/etc/passwd")
	if err != nil {
		return "/"
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, maxPasswd))
	return parseHome(string(text), uid)
}

// parseHome reads passwd(5).
func parseHome(text string, uid uint32) string {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 6 || !strings.HasPrefix(f[5], "/") || strings.ContainsRune(f[5], 0) {
			continue
		}
		if n, err := strconv.ParseUint(f[2], 10, 32); err == nil && uint32(n) == uid {
			return f[5]
		}
	}
	return "/"
}
