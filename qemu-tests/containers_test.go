package qemutests

import (
	"strings"
	"testing"

	"github.com/proa-os/proa/qemu-tests/vm"
)

// networks runs containers in networks: they find each other by name, keep apart from other networks, and are reached by ports of the
// machine. One, front on port 8081, stays.
func networks(t *testing.T, m *vm.Machine, image string) {
	t.Helper()
	run(t, m, "containerctl network create shop && containerctl network create --internal vault")
	for _, c := range []string{
		"--name front -p 8081:8080", "--name till --network shop --network-alias store -p 127.0.0.1:8082:8080", "--name safe --network vault",
	} {
		run(t, m, "containerctl run -d "+c+" "+image)
	}
	portAnswers(t, m)
	run(t, m, "containerctl network connect vault till")
	for _, c := range []struct{ command, want string }{
		{"wget -qO- http://127.0.0.1:8082/", "hello from a container"},
		{`wget -qO- http://$(ip -4 -o addr show scope global | awk '!/pn-/{sub("/.*","",$4);print $4;exit}'):8081/`, "hello from a container"},
		{"containerctl exec till wget -qO- http://safe:8080/", "hello from a container"},
		{"containerctl exec safe wget -qO- http://till:8080/", "hello from a container"},
		{"containerctl exec till wget -qO- http://store.shop:8080/", "hello from a container"},
		{"containerctl exec front wget -T 2 -qO- http://till:8080/ >/dev/null 2>&1 || echo unknown", "unknown"},
		{"containerctl exec safe wget -T 2 -qO- http://10.0.2.2/ 2>&1 | grep -c unreachable", "1"},
		{"systemctl is-active $(systemctl list-units --plain -q 'proa-dns@*.socket' | awk '{print $1}') | sort -u", "active"},
		{"ps -o user,args | grep '[c]ontainerctl dns' | cut -d' ' -f1 | sort -u", "proa-dns"},
	} {
		if out, err := m.Run(t.Context(), "root", c.command); err != nil || strings.TrimSpace(out) != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.command, out, err, c.want)
		}
	}
	if t.Failed() {
		t.Log(run(t, m, "ls -lR /run/proa/network; cat /run/proa/network/names.json; systemctl status -n 20 --no-pager 'proa-dns@*' proa-till.service; ss -lnu; nft list ruleset"))
	}
	run(t, m, "kill -9 $(containerctl inspect front | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' | head -1)")
	portAnswers(t, m)
	run(t, m, "containerctl rm -f till safe && containerctl network rm shop vault")
	run(t, m, "for i in $(seq 10); do containerctl run -p 8090:80 "+image+" true || exit 1; done")
	run(t, m, "containerctl stop front")
	if got := run(t, m, "nft list ruleset; ip -o link | grep -E 'pn-|pv'; ls -A /run/proa/network/endpoints; systemctl list-units -q --plain 'proa-dns@*'; cat /proc/sys/net/ipv4/ip_forward"); got != "0" {
		t.Errorf("got %q, want nothing of networks left without a container", got)
	}
	run(t, m, "containerctl start front")
	portAnswers(t, m)
}

// portAnswers asks the container front by its port of the machine.
func portAnswers(t *testing.T, m *vm.Machine) {
	t.Helper()
	if got := run(t, m, "for i in $(seq 60); do wget -qO- http://127.0.0.1:8081/ && break; sleep 1; done"); got != "hello from a container" {
		t.Errorf("got %q by the port of the container front, want its greeting\n%s", got, run(t, m, "nft list ruleset; ip addr; journalctl -b -q -o cat -u proa-front.service -u 'proa-dns@*'"))
	}
}
