package qemutests

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// TestContainers proves what containerctl says of containers where systemd, the kernel's cgroups and the journal are the real ones:
// how they end, what holds them, who may pull what, how they are wired, and what is left of them.
func TestContainers(t *testing.T) {
	s := begin(t, 5)
	registry := s.registryOf(func(*world.Registry) error { return nil })
	signer, err := world.NewSigner()
	check(t, err)
	stranger, err := world.NewSigner()
	check(t, err)
	check(t, pushSigned(registry, signer, stranger))
	public, err := signer.PublicPEM()
	check(t, err)
	at := registry.GuestHost()
	image := at + "/lab/hello:1"
	m := s.goOn("ship")
	step(t, m, "trust", func(t *testing.T) {
		put(t, m, "/etc/proa/trust/lab.pub", 0o644, public)
		put(t, m, "/etc/proa/trust/lab.toml", 0o644, fmt.Sprintf(`[[trust]]
prefix = "%[1]s/signed"
require = "signature"
keys = ["lab.pub"]
[[trust]]
prefix = "%[1]s/lab/rejected"
require = "reject"
`, at))
		answers(t, m, at, trusted)
	})
	put(t, m, "/etc/hostname", 0o644, "ship\n")
	put(t, m, "/etc/systemd/system/proa-door.socket", 0o644, "[Socket]\nListenStream=7777\n")
	run(t, m, "systemctl daemon-reload; containerctl pull --tls-verify=false "+image)
	step(t, m, "lives", func(t *testing.T) { answers(t, m, image, workloadLives) })
	step(t, m, "held", func(t *testing.T) { answers(t, m, image, workloadHeld) })
	step(t, m, "ready and sockets", func(t *testing.T) { answers(t, m, image, workloadReady) })
	step(t, m, "networks", func(t *testing.T) { networks(t, m, image) })
	step(t, m, "pods", func(t *testing.T) { answers(t, m, image, pods) })
	step(t, m, "many containers", func(t *testing.T) { manyShort(t, m, image) })
	// The last ones of the boot: its journal is not clean any more.
	unclean := vm.Allow(`proa-[\w:@-]+\.(service|timer)|containerctl|oci-runtime|hello-[0-9a-f]+\[`, "programs fail and are killed")
	step(t, m, "ends", func(t *testing.T) { answers(t, m, image, workloadEnds) }, unclean)
	step(t, m, "ill", func(t *testing.T) { answers(t, m, image, workloadIll) }, unclean,
		vm.Allow(`(?i)out of memory|oom|Call Trace`, "a container takes more memory than it may"))
	if fullDepth() {
		step(t, m, "killed programs", func(t *testing.T) { killed(t, m, image, 20) }, unclean, vm.Allow(`(?i)out of memory|oom|Call Trace`, "see above"))
	}
}

// pushSigned pushes under signed/ an image that is signed, and others that are not as they should be.
func pushSigned(r *world.Registry, signer, stranger *world.Signer) error {
	digest := map[string]string{}
	for _, name := range []string{"good", "plain", "stranger", "other"} {
		d, err := r.PushPage("signed/"+name+":1", name+"\n")
		if err != nil {
			return err
		}
		digest[name] = d
	}
	at := r.GuestHost() + "/signed/"
	_, err := r.PushPage("lab/tampered:1", "tampered\n")
	return errors.Join(err,
		r.Sign(signer, "signed/good", digest["good"], at+"good", digest["good"]),
		r.Sign(stranger, "signed/stranger", digest["stranger"], at+"stranger", digest["stranger"]),
		// Somebody has put another image in the place of one, beside a signature that was made for that.
		r.Sign(signer, "signed/other", digest["other"], at+"other", digest["good"]))
}

// An asked is a command of a person's on the machine, in which I is the image, R runs one without a network, and what it says: a regular
// expression over its output and, if that is not 0, a last line "exit N".
type asked struct{ command, want string }

// answers carries out commands, all in one go as a login costs an emulated machine more than most of them, and compares what they say.
func answers(t *testing.T, m *vm.Machine, image string, all []asked) {
	t.Helper()
	var script strings.Builder
	fmt.Fprintf(&script, "I=%s\nR='containerctl run --network none'\n", image)
	script.WriteString("poll() { for i in $(seq 120); do eval \"$1\" && return; sleep 0.5; done; echo \"in vain: $1\"; }\n")
	for i, a := range all {
		fmt.Fprintf(&script, "echo '<<< %d'\n( %s\n) 2>&1 </dev/null || echo \"exit $?\"\n", i, a.command)
	}
	out, err := m.Run(t.Context(), "root", script.String())
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range all {
		_, said, ok := strings.Cut(out, fmt.Sprintf("<<< %d\n", i))
		said, _, _ = strings.Cut(said, "<<< ")
		said = strings.TrimSuffix(said, "\n")
		if !ok || !regexp.MustCompile(`(?s)\A(?:`+a.want+`)\z`).MatchString(said) {
			t.Errorf("%s\ngot:  %q\nwant: %s", a.command, said, a.want)
		}
	}
}

// workloadEnds: codes are told truly, whichever way somebody asks.
var workloadEnds = []asked{
	// At a terminal in the background nobody sits, but somebody may come.
	{`$R -dit --restart no --name desk $I sh; poll 'containerctl exec desk true 2>/dev/null'; echo 'tty; exit 5' | containerctl attach desk >/dev/null; echo "code $?"; containerctl logs desk | grep -c '^/dev/pts/'; containerctl rm desk`, `desk\ncode 5\n1\ndesk`},
	{`$R --rm --entrypoint /bin/sh $I -c 'exit 7'`, `exit 7`},
	{`$R --rm $I sh -c 'kill -9 $$; echo outlived'`, `outlived`}, // process 1 of its namespace
	{`$R --rm --init $I sh -c 'kill -9 $$; echo outlived'`, `exit 137`},
	{`$R -d --restart no --name code $I sh -c 'echo said; exit 4'; containerctl wait code; containerctl start -a code`, `code\n4\nsaid\nexit 4`},
	{`containerctl ps -a --filter exited=4 --format '{{.name}} {{.exit.code}}'; containerctl rm code`, `code 4\ncode`},
	{`$R -di --rm --name parrot $I sh -c 'read word; echo $word; exit 3'; echo polly | containerctl attach parrot`, `parrot\npolly\nexit 3`},
	// What somebody has in the foreground, for one run.
	{`$R --rm --name seat $I sh -c 'trap "exit 6" USR1; while :; do sleep 0.1; done' & poll 'containerctl exec seat true 2>/dev/null'; containerctl inspect --format '{{.status}} {{.unit}}' seat; containerctl logs seat; containerctl rename seat chair; containerctl wait seat & sleep 1; containerctl kill -s USR1 seat; wait %1; echo "code $?"; wait`,
		`running proa-seat.service\n.*its output is with who started it\n.*lives for one run.*seat\n.*code 6(\n6)?`},
	// Systemd closes its connections then.
	{`$R --rm --name seat $I sh -c 'until [ -e /go ]; do sleep 0.1; done; exit 7' & poll 'containerctl exec seat true 2>/dev/null'; systemctl daemon-reexec; containerctl exec seat touch /go; wait $!; echo "code $?"`, `code 7`},
	// A unit that was stopped has not failed: SIGTERM is how a container is.
	{`$R -d --init --name term $I sleep 1000 && poll '[ "$(containerctl top term | grep -c sleep)" = 2 ]' && containerctl stop term && containerctl ps -a --filter name=term --format '{{.name}} {{.status}} {{.exit.code}}'; systemctl is-failed proa-term; containerctl rm term`,
		`term\nterm\nterm exited 143\ninactive\nterm`},
}

// workloadLives: what is done to a container that runs.
var workloadLives = []asked{
	{`$R -d --name base --memory 64m $I sh -c 'trap "exit 0" TERM; trap "echo usr1" USR1; echo up; while :; do n=$((n+1)); echo $n > /tmp/n; sleep 0.1; done'; poll 'containerctl exec base test -s /tmp/n'`, `base`},
	// Each of them one connection to systemd, which is given descriptors on it.
	{`for i in $(seq 12); do $R --rm $I true || echo "$i: $?"; done`, ``},
	{`containerctl pause base; a=$(containerctl cp base:/tmp/n - | tar xO -f -); sleep 1; b=$(containerctl cp base:/tmp/n - | tar xO -f -); [ $a = $b ] && cat /sys/fs/cgroup/system.slice/proa-base.service/cgroup.freeze; containerctl ps; containerctl exec base true`,
		`base\n1\nNAME .* \(paused\) .*base is paused: containerctl unpause base\nexit 1`},
	{`containerctl unpause base; a=$(containerctl exec base cat /tmp/n); poll '[ "$(containerctl exec base cat /tmp/n)" -gt '$a' ]'`, `base`},
	{`containerctl stats --no-stream base; containerctl top base; echo there > /tmp/f; containerctl cp /tmp/f base:/tmp/f; containerctl exec base cat /tmp/f`, `NAME +CPU.*\nbase .*64 MB.*\nPID .*sh -c trap .*\nthere`},
	// The unit is read anew, and what is new counts at once; a unit without a file is told.
	{`containerctl update --memory 48m --pids-limit 50 base; containerctl exec base cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; systemctl show -P TasksMax proa-base`, `base\n50331648\n50\n50`},
	{`containerctl exec base rm /www/index.html; containerctl diff base | grep -E ' /(www.*|tmp/n)$'`, `A /tmp/n\nC /www\nD /www/index.html`},
	{`$R --rm --name seat $I sleep 1000 & poll 'containerctl exec seat true 2>/dev/null'; containerctl update --memory 48m seat; containerctl exec seat cat /sys/fs/cgroup/memory.max; containerctl rm -f seat; wait; poll '! ls -d /run/systemd/*/proa-seat* >/dev/null 2>&1'`, `seat\n50331648\nseat`},
	{`systemctl set-property --runtime proa-base.service MemoryMax=50M; containerctl exec base cat /sys/fs/cgroup/memory.max`, `52428800`},
	{`$R --name pot -v /soup $I sh -c 'echo soup > /soup/f'; containerctl create --rm --name spoon --network none --volumes-from pot:ro $I cat /soup/f; containerctl rm pot; containerctl start -a spoon; containerctl volume ls -q | wc -l`, `spoon\npot\nsoup\n0`},
	{`containerctl kill -s USR1 base; poll 'containerctl logs base | grep -q usr1'; containerctl logs --since 1h --tail 2 base; journalctl -q -o cat -u proa-base | grep -c '^up$'`, `base\nup\nusr1\n1`},
	{`containerctl logs -f --tail 1 base > /tmp/log & p=$!; containerctl events > /tmp/events & q=$!; poll 'grep -q usr1 /tmp/log'; containerctl restart base; poll 'grep -q up /tmp/log && grep -q start /tmp/events'; kill $p $q; wait; cat /tmp/log; grep -oE ' (die|start) ' /tmp/events | tr -d ' '`,
		`base\nusr1\nup\ndie\nstart`},
	// Systemd stops no frozen unit.
	{`containerctl pause base && containerctl stop base; systemctl is-active proa-base; containerctl ps -a --filter name=base --format '{{.status}} {{.exit.code}}'`, `base\nbase\ninactive\nexited 0`},
	{`containerctl start base; poll 'containerctl exec base test -s /tmp/f'; systemctl stop proa-base; containerctl ps -a --filter name=base --format '{{.status}} {{.exit.code}}'; containerctl rm base`, `base\nexited (0|143)\nbase`},
}

// workloadHeld: what a workload may do and see.
var workloadHeld = []asked{
	{`$R --rm --cap-drop ALL --read-only --tmpfs /tmp $I sh -c 'grep -E "CapEff|CapBnd" /proc/self/status; touch /x; touch /tmp/y && echo tmp'`, `CapEff:\s0+\nCapBnd:\s0+\ntouch: /x: Read-only file system\ntmp`},
	{`$R --rm $I sh -c 'grep -E "CapEff|Seccomp:" /proc/self/status; mount -t tmpfs x /tmp || date -s 2001-01-01; true'`, `CapEff:\s00000000a00425fb\nSeccomp:\s2\nmount: .*(denied|permitted).*date: .*Operation not permitted.*`},
	{`printf s3cret | containerctl secret create word - >/dev/null; $R --rm --secret word $I sh -c 'cat /run/secrets/word; echo; touch /run/secrets/word; true'; containerctl secret rm word >/dev/null; grep -rl s3cret /var/lib/proa/containers/containers`, `s3cret\ntouch: .*Read-only file system\nexit 1`},
	{`$R --rm --userns auto $I sh -c 'cat /proc/self/uid_map; id -u; touch /x && stat -c %u /x'`, `\s+0\s+536870912\s+65536\n0\n0`},
	{`$R -d --restart no --name tight --memory-reservation 8m --cpuset-cpus 0 --oom-score-adj 300 --log-driver none $I sh -c 'echo unheard; exec sleep 1000' && cat /proc/$(systemctl show -P MainPID proa-tight)/oom_score_adj; cd /sys/fs/cgroup/system.slice/proa-tight.service && cat memory.low cpuset.cpus; $R --rm --pid container:tight $I ps -o args | grep -c '^sleep 1000'; containerctl logs tight; containerctl rm -f tight`,
		`tight\n300\n8388608\n0\n1\ntight`},
	{`containerctl run -d --rm -P --expose 8080 --userns auto --name port $I && containerctl port port && poll 'wget -qO- http://127.0.0.1:20000/'; stat -c %u /proc/$(systemctl show -P MainPID proa-port); containerctl rm -f port`,
		`port\n8080/tcp -> \*:20000\n(wget: .*\n)*hello from a container\n536870912\nport`},
}

// workloadReady: a unit is active when its workload says so, and its sockets are the workload's.
var workloadReady = []asked{
	{`$R -d --restart no --sdnotify container --name ready -v /usr:/usr:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro $I sh -c 'while ! [ -e /go ]; do sleep 0.2; done; /usr/bin/systemd-notify --ready; exec sleep 1000' & poll '[ "$(systemctl is-active proa-ready)" = activating ] && containerctl exec ready true'; sleep 1; systemctl is-active proa-ready; containerctl exec ready touch /go; wait; systemctl is-active proa-ready; containerctl rm -f ready`,
		`(.*start it first.*\n)?activating\nready\nactive\nready`},
	{`$R -d --restart no --name door $I sh -c 'echo fds $LISTEN_FDS of $LISTEN_PID is $$; ls -l /proc/1/fd/3; exec sleep 1000' >/dev/null; containerctl stop door; systemctl daemon-reload; systemctl start proa-door.socket; (echo; sleep 1) | nc 127.0.0.1 7777 >/dev/null & poll 'containerctl logs door | grep -q socket:'; kill $!; containerctl logs --tail 2 door | grep -oE 'fds.*|socket'; systemctl stop proa-door.socket; containerctl rm -f door`,
		`door\n(ls: .*\n)?fds 1 of 1 is 1\nsocket\n(.*\n)?door`},
	// Beside what containerctl hands to the unit.
	{`mkdir -p /run/systemd/system/proa-desk.service.d; printf '[Service]\nOpenFile=/etc/hostname:name:read-only\n' > /run/systemd/system/proa-desk.service.d/open.conf; systemctl daemon-reload; $R --rm --name desk $I sh -c 'echo $LISTEN_FDS $LISTEN_FDNAMES; cat <&3'`, `1 name\nship`},
}

// pods: the containers of a pod are up and down together, in one network namespace, which has the ports.
var pods = []asked{
	{`mkdir -p /etc/containers/systemd && cd /etc/containers/systemd && printf '[Pod]\nPodName=shop\nPublishPort=8085:8080\n' > shop.pod && printf "[Container]\nContainerName=page\nImage=$I\nPod=shop.pod\n" > page.container &&
		printf "[Container]\nContainerName=peer\nImage=$I\nPod=shop.pod\nVolume=shop.volume:/data\nExec=sleep 1000\n[Service]\nTimeoutStopSec=60\n" > peer.container && printf '[Volume]\n' > shop.volume && systemctl daemon-reload && systemctl start shop-pod && poll 'systemctl is-active -q page && systemctl is-active -q peer' && poll 'wget -qO- http://127.0.0.1:8085/'`,
		`(wget: .*\n)*hello from a container`},
	{`containerctl exec peer touch /data/kept; containerctl exec peer wget -qO- http://127.0.0.1:8080/; stat -Lc %i /proc/$(systemctl show -P MainPID page)/ns/net /proc/$(systemctl show -P MainPID peer)/ns/net | uniq | wc -l; containerctl run --rm $I wget -qO- http://shop:8080/`, `hello from a container\n1\nhello from a container`},
	// One is started anew by itself, and finds what it had.
	{`was=$(systemctl show -P MainPID peer); systemctl restart page && poll 'wget -qO- http://127.0.0.1:8085/'; [ $was = $(systemctl show -P MainPID peer) ]`, `(wget: .*\n)*hello from a container`},
	{`systemctl stop shop-pod; systemctl is-active page peer; ls -A /run/proa/netns; wget -qO- http://127.0.0.1:8085/ 2>&1 | grep -c refused`, `inactive\ninactive\n1`},
	{`systemctl start page && poll 'systemctl is-active -q shop-pod && systemctl is-active -q peer' && containerctl exec peer ls /data; systemctl stop page; systemctl is-active shop-pod peer; systemctl stop peer; poll '[ "$(systemctl is-active shop-pod)" = inactive ]'; ls -A /run/proa/netns`, `kept\nactive\nactive`},
	{`rm /etc/containers/systemd/shop.pod /etc/containers/systemd/page.container /etc/containers/systemd/peer.container /etc/containers/systemd/shop.volume; systemctl daemon-reload; containerctl rm page peer; containerctl volume rm systemd-shop; containerctl ps -aq`,
		`page\npeer\nsystemd-shop\nfront`},
}

// trusted: under signed/ counts what the lab's key has signed, and nothing else.
var trusted = []asked{
	{`containerctl pull --tls-verify=false $I/signed/good:1 && $R --rm $I/signed/good:1 cat /www/index.html`, `.*\ngood`},
	{`containerctl pull --tls-verify=false $I/signed/plain:1`, `.*not trusted: /etc/proa/trust/lab.toml demands a signature by lab.pub for the prefix .* has none.*exit 1`},
	{`containerctl pull --tls-verify=false $I/signed/stranger:1`, `.*not trusted: .* none of 1 .* counts: .*exit 1`},
	{`containerctl pull --tls-verify=false $I/signed/other:1`, `.*not trusted: .* none of 1 .* counts: .*exit 1`},
	{`containerctl pull --tls-verify=false $I/lab/tampered:1`, `.*(sha256|digest).*exit 1`},
	{`containerctl pull --tls-verify=false $I/lab/rejected/x:1`, `.*not trusted: /etc/proa/trust/lab.toml rejects the prefix .*exit 1`},
	{`containerctl run --rm --tls-verify=false $I/signed/plain:1 true`, `.*not trusted: .*exit 125`},
	{`containerctl images | grep -c -E 'plain|stranger|other|tampered'`, `0\nexit 1`},
}

// workloadIll: what goes wrong is told, and restarted as was asked for.
var workloadIll = []asked{
	{`$R -d --restart no --name big --memory 16m $I sh -c 'x=a; while :; do x=$x$x; done'; containerctl wait big; containerctl ps -a --filter name=big; containerctl rm big`, `big\n137\nNAME .*\nbig .* exited 137 \(out of memory\) .*\nbig`},
	{`$R --rm --name big --memory 16m $I sh -c 'until [ -e /go ]; do sleep 0.1; done; x=a; while :; do x=$x$x; done' & poll 'containerctl exec big true 2>/dev/null'; systemctl daemon-reexec; containerctl exec big touch /go; wait $!; echo "code $?"`,
		`containerctl: big: exited 137 \(out of memory\)\ncode 137`},
	{`mkdir /tmp/c; : > /tmp/c/n; $R -d --restart on-failure:2 --name tries -v /tmp/c:/c $I sh -c 'echo x >> /c/n; exit 7'; poll '[ "$(wc -l < /tmp/c/n)" -ge 3 ] && [ "$(containerctl ps -aq --filter status=exited)" = tries ]'; sleep 3; wc -l < /tmp/c/n; containerctl ps -a --filter name=tries --format '{{.name}} {{.status}} {{.exit.code}}'; containerctl rm tries`, `tries\n3\ntries exited 7\ntries`},
	{`$R -d --name ill --health-cmd 'test -f /tmp/ok' --health-interval 500ms --health-retries 2 $I sleep 1000; poll '[ "$(containerctl ps -q --filter health=unhealthy)" = ill ]'; systemctl is-active proa-ill:health.timer; containerctl exec ill touch /tmp/ok; poll '[ "$(containerctl ps -q --filter health=healthy)" = ill ]'; containerctl health ill && containerctl rm -f ill; systemctl list-units --all --plain -q 'proa-ill*'`,
		`ill\nactive\nill`},
	{`$R --rm $I no-such-program`, `.*no-such-program.*exit 127`},
}
