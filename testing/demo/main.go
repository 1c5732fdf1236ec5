// Command demo walks the tutorial on two hosts made of namespaces: every command it shows it runs, and every line it
// prints is that command's own output. It ends by comparing what the kernel lists with what it listed before.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/minictl/minictl/testing/lab"
)

func main() {
	lab.Reexec()
	d := &demo{}
	if err := d.Run(d.walk); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Println("\nThe hosts are gone without a trace. That was minictl.")
}

// demo logs nothing: the output is the tutorial's.
type demo struct {
	lab.Program
	h1, h2 *lab.Host
	laptop *lab.Host
}

func (d *demo) walk() error {
	images, err := filepath.Abs("bin/images")
	if err != nil {
		return err
	}
	l := lab.New(d)
	d.h1, d.h2, d.laptop = l.Host("host1"), l.Host("host2"), l.Client("laptop")
	title("Two hosts, a fresh daemon on each")
	for _, h := range []*lab.Host{d.h1, d.h2} {
		fmt.Printf("[root@%s ~]# minictl daemon &\n", h.Name())
		h.Daemon()
		d.minictl(h, "load", "-q", "-i", filepath.Join(images, "busybox.tar"))
		d.minictl(h, "load", "-q", "-i", filepath.Join(images, "httpd.tar"))
	}
	before := []lab.Snapshot{d.h1.Snapshot(), d.h2.Snapshot()}
	d.cluster()
	d.overlay()
	d.ports()
	d.across()
	d.built()
	d.isolation()
	return d.tearDown(before)
}

func title(s string) { fmt.Printf("\n\033[1m== %s\033[0m\n", s) }

// shell shows a command and its output; a command that fails ends the walk unless it is meant to.
func (d *demo) shell(h *lab.Host, wantFail bool, args ...string) string {
	fmt.Printf("[root@%s ~]# %s\n", h.Name(), quote(args))
	if args[0] == "minictl" {
		bin, err := lab.Binary()
		if err != nil {
			d.Fatalf("%v", err)
		}
		args = append([]string{bin}, args[1:]...)
	}
	out, errOut, code := h.Run(context.Background(), args...)
	fmt.Print(out, errOut)
	if (code != 0) != wantFail {
		d.Fatalf("%s ended with code %d", quote(args), code)
	}
	return out
}

func quote(args []string) string {
	var out []string
	for _, a := range args {
		if strings.ContainsAny(a, " |&;'\"") {
			a = "'" + a + "'"
		}
		out = append(out, a)
	}
	return strings.Join(out, " ")
}

func (d *demo) minictl(h *lab.Host, args ...string) string {
	return d.shell(h, false, append([]string{"minictl"}, args...)...)
}

func (d *demo) cluster() {
	title("One cluster: the line that init prints is typed on the other host")
	out := d.minictl(d.h1, "cluster", "init", "--advertise-addr", "eth0")
	var join []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 3 && f[0] == "minictl" && f[2] == "join" {
			join = f[1:]
		}
	}
	d.minictl(d.h2, join...)
	d.minictl(d.h2, "node", "ls")
}

func (d *demo) overlay() {
	title("An overlay network: made on host1, listed on both")
	d.minictl(d.h1, "network", "create", "-d", "overlay", "ov_net1")
	d.minictl(d.h1, "network", "ls")
	d.minictl(d.h2, "network", "ls")
	title("A container on it")
	d.minictl(d.h1, "run", "-itd", "--name", "bbox1", "--network", "ov_net1", "busybox")
	d.minictl(d.h1, "exec", "bbox1", "ip", "r")
	d.minictl(d.h1, "network", "ls", "--filter", "driver=bridge")
}

func (d *demo) ports() {
	title("A published port: from another machine, from the host by its address and by 127.0.0.1")
	d.minictl(d.h1, "run", "-p", "80:80", "-d", "--network", "ov_net1", "--name", "web1", "httpd")
	d.shell(d.laptop, false, "busybox", "wget", "-qO-", "http://192.168.66.11/")
	d.shell(d.h1, false, "busybox", "wget", "-qO-", "http://192.168.66.11/")
	d.shell(d.h1, false, "busybox", "wget", "-qO-", "http://127.0.0.1/")
	d.minictl(d.h1, "rm", "-f", "web1")
}

func (d *demo) across() {
	title("Across hosts, by name")
	d.minictl(d.h2, "run", "-itd", "--name", "bbox2", "--network", "ov_net1", "busybox")
	d.minictl(d.h2, "exec", "bbox2", "ip", "r")
	d.minictl(d.h2, "exec", "bbox2", "ping", "-c", "2", "bbox1")
}

func (d *demo) built() {
	title("How it is built: one namespace per overlay, a bridge and a VXLAN device in it")
	id := strings.TrimSpace(d.minictl(d.h2, "network", "inspect", "-f", "{{.Id}}", "ov_net1"))
	ns := "1-" + id[:10]
	d.shell(d.h2, false, "ip", "netns")
	d.shell(d.h2, false, "ip", "netns", "exec", ns, "ip", "-d", "link", "show", "vxlan0")
	d.shell(d.h2, false, "ip", "netns", "exec", ns, "bridge", "fdb", "show", "dev", "vxlan0")
}

func (d *demo) isolation() {
	title("Isolation: another overlay is another world")
	d.minictl(d.h2, "network", "create", "-d", "overlay", "ov_net2")
	d.minictl(d.h2, "run", "-itd", "--name", "bbox3", "--network", "ov_net2", "busybox")
	d.shell(d.h2, true, "minictl", "exec", "bbox3", "ping", "-c", "1", "-W", "1", "10.0.0.2")
	d.shell(d.h2, true, "minictl", "exec", "bbox3", "ping", "-c", "1", "-W", "1", "172.18.0.2")
}

func (d *demo) tearDown(before []lab.Snapshot) error {
	title("Everything that run made, rm unmakes")
	d.minictl(d.h1, "rm", "-f", "bbox1")
	d.minictl(d.h2, "rm", "-f", "bbox2", "bbox3")
	d.minictl(d.h1, "network", "rm", "ov_net1", "ov_net2")
	d.minictl(d.h2, "cluster", "leave")
	d.minictl(d.h1, "cluster", "leave")
	for i, h := range []*lab.Host{d.h1, d.h2} {
		if diff := lab.Diff(before[i], h.Snapshot()); diff != "" {
			return fmt.Errorf("%s: the kernel lists other things than before:\n%s", h.Name(), diff)
		}
	}
	fmt.Println("Both hosts' links, addresses, routes, rules, namespaces, mounts and cgroups are as they were before.")
	return nil
}
