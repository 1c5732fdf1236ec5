// Package lab makes hosts, links and partitions out of Linux namespaces, so that tests and the demo run several real
// daemons on one machine.
//
// A [Host] has a network, mount, UTS, IPC, PID and cgroup namespace of its own, and with them its own links, rules, /run,
// /etc, /var/lib/minictl, host name and cgroup root. Its eth0 is one end of a veth pair; the other end is a port of the
// underlay, a bridge in a namespace of its own (192.168.66.0/24; .1 answers DNS). Nothing is put into the machine's own
// network namespace and nothing is named in /run/netns: every namespace lives exactly as long as the process that holds
// it, and that process ends when its parent's pipe closes. So even a test killed with SIGKILL leaves no link, mount or
// process behind; what it does leave is an empty folder in the temporary directory and empty cgroups.
//
// Holding processes are the test binary itself, started again. Since the project has no init functions, a test package
// that uses the lab says so:
//
//	func TestMain(m *testing.M) { lab.Main(m) }
//
// and a program calls [Reexec] first thing in main. A test then reads like a diagram:
//
//	l := lab.New(t)
//	h1, h2 := l.Host("host1"), l.Host("host2")
//	h1.Daemon()
//	h2.Daemon()
//	l.Partition(h1, h2)
//
// Other namespaces are used in preference to [Host] when a test needs one link and no daemon: see netdrivertest.NewNS.
package lab
