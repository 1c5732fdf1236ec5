package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestOutputIsDockers: what the commands that only look print is docker's, byte for byte, and so is the exit code.
func TestOutputIsDockers(t *testing.T) {
	t.Parallel()
	ours, theirs := clients()[0], recentClients(t)[len(recentClients(t))-1]
	if theirs.name == ours.name {
		t.Log("nothing to compare with")
		return
	}
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("network", "create", "--label", "a=b", "br_net")
	h.MustMinictl("volume", "create", "--label", "a=b", "data")
	h.MustMinictl("run", "-d", "--name", "web1", "--label", "tier=web", "-p", "127.0.0.1:8080:80", "--network", "br_net", "-v", "data:/data:ro", "httpd")
	h.Minictl("run", "--name", "ended", "busybox", "sh", "-c", "echo hello; exit 3")
	h.MustMinictl("tag", "busybox", "mine/busybox:1.0")
	for _, line := range strings.Split(strings.TrimSpace(looks), "\n") {
		args := strings.Fields(line)
		for i, a := range args {
			args[i] = strings.ReplaceAll(a, "_", " ")
		}
		gotOut, gotErr, gotCode := ours.try(h, args...)
		wantOut, wantErr, wantCode := theirs.try(h, args...)
		if likeness(args, gotOut) != likeness(args, wantOut) || gotCode != wantCode {
			t.Errorf("%s: code %d\n%s%s\ndocker: code %d\n%s%s", line, gotCode, gotOut, gotErr, wantCode, wantOut, wantErr)
		}
	}
}

// age is how docker says how long something has been; between two commands it changes, and with it the columns' width.
var age = regexp.MustCompile(`(Less than a second|\d+ seconds?|About a minute|\d+ minutes?)( ago)?`)

func likeness(args []string, out string) string {
	if args[0] == "images" { // docker's client lists the names of one image in no order
		l := strings.SplitAfter(out, "\n")
		slices.Sort(l)
		out = strings.Join(l, "")
	}
	if !age.MatchString(out) {
		return out
	}
	return regexp.MustCompile(` {2,}`).ReplaceAllString(age.ReplaceAllString(out, "AGE"), "  ")
}

// A space inside an argument is written as an underscore.
const looks = `
ps
ps -a
ps -aq
ps -l
ps -n 1
ps -a --no-trunc
ps -as
ps -a -f status=exited
ps -f label=tier=web
ps -a --format table_{{.Names}}\t{{.Image}}\t{{.Ports}}\t{{.Mounts}}\t{{.Networks}}\t{{.Labels}}
ps -a --format {{json_.Names}}_{{json_.State}}
ps --filter nonsense=1
container ls --all
images
images -a
images -q
images --no-trunc
images --digests
images busybox
images -f reference=mine/*
images --format {{.Repository}}:{{.Tag}}={{.Size}}
image ls nosuch
history busybox
history -q --no-trunc busybox
history -H=false busybox
history --format json busybox
network ls
network ls -q
network ls --no-trunc
network ls -f driver=bridge
network ls --format json
network inspect br_net
network inspect -f {{.Name}}_{{.Labels}} br_net
network inspect nosuch
volume ls
volume ls -q
volume ls -f label=a=b
volume ls --format json
volume inspect data
volume inspect nosuch
inspect web1
inspect -s web1
inspect --type container -f {{.State.Status}} ended
inspect --type image -f {{.Architecture}} busybox
inspect nosuch
inspect -f {{.Nope}} web1
container inspect ended
image inspect busybox
port web1
port web1 80
port web1 81
top web1
diff ended
logs ended
logs --tail 0 ended
logs nosuch
system df -v
events --since 0 --until 1
stats --no-stream --format {{.Name}} web1
stats --no-stream -a --format {{.Name}}
version -f {{.Server.Version}}
info -f {{.Driver}}_{{.ContainersRunning}}
wait ended
search
node ls -q
container prune -f --filter label=nosuch
image prune -f
network prune -f --filter label=nosuch
volume prune -f --filter label=nosuch
system prune -f --filter label=nosuch
rm -f nosuch
rmi -f nosuch
network rm -f nosuch
volume rm -f nosuch
stop nosuch
kill -s NOPE web1
`
