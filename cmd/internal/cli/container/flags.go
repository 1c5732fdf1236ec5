package container

import (
	"time"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// createFlags are all the flags of run and create that end up in the container's Config, HostConfig and endpoints.
// They are grouped as the daemon's structures are; what the daemon cannot do it refuses by name.
type createFlags struct {
	process  processFlags
	security securityFlags
	network  networkFlags
	storage  storageFlags
	health   healthFlags
	limits   limitFlags
	devices  deviceFlags
	lifetime lifetimeFlags
}

func newCreateFlags(fs *pflag.FlagSet) *createFlags {
	f := &createFlags{}
	f.process.add(fs)
	f.security.add(fs)
	f.network.add(fs)
	f.storage.add(fs)
	f.health.add(fs)
	f.limits.add(fs)
	f.devices.add(fs)
	f.lifetime.add(fs)
	return f
}

// processFlags say what runs, with which streams and surroundings.
type processFlags struct {
	attach, env, envFile, labels, labelFile, groups opts.ListOpts
	interactive, tty                                bool
	entrypoint, hostname, domainname, user, workdir string
	annotations                                     *opts.MapOpts
	umask                                           opts.UmaskOpt
}

func (f *processFlags) add(fs *pflag.FlagSet) {
	f.attach = opts.NewListOpts(checkAttach)
	f.env = opts.NewListOpts(opts.ValidateEnv)
	f.envFile = opts.NewListOpts(nil)
	f.labels = opts.NewListOpts(opts.ValidateLabel)
	f.labelFile = opts.NewListOpts(nil)
	f.groups = opts.NewListOpts(nil)
	f.annotations = opts.NewMapOpts(nil, nil)
	fs.VarP(&f.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	fs.VarP(&f.env, "env", "e", "Set environment variables")
	fs.Var(&f.envFile, "env-file", "Read in a file of environment variables")
	fs.VarP(&f.labels, "label", "l", "Set meta data on a container")
	fs.Var(&f.labelFile, "label-file", "Read in a line delimited file of labels")
	fs.Var(&f.groups, "group-add", "Add additional groups to join")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	fs.StringVarP(&f.hostname, "hostname", "h", "", "Container host name")
	fs.StringVar(&f.domainname, "domainname", "", "Container NIS domain name")
	fs.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.Var(f.annotations, "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
	fs.Var(&f.umask, "umask", "Set umask for the container")
}

// securityFlags say what the process may do and which namespaces it shares.
type securityFlags struct {
	capAdd, capDrop, securityOpt                  opts.ListOpts
	privileged, readOnly                          bool
	userns, cgroupns, cgroupParent, ipc, pid, uts string
	isolation, runtime                            string
	sysctls                                       *opts.MapOpts
}

func (f *securityFlags) add(fs *pflag.FlagSet) {
	f.capAdd, f.capDrop, f.securityOpt = opts.NewListOpts(nil), opts.NewListOpts(nil), opts.NewListOpts(nil)
	f.sysctls = opts.NewMapOpts(nil, opts.ValidateSysctl)
	fs.Var(&f.capAdd, "cap-add", "Add Linux capabilities")
	fs.Var(&f.capDrop, "cap-drop", "Drop Linux capabilities")
	fs.Var(&f.securityOpt, "security-opt", "Security options")
	fs.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to this container")
	fs.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	fs.StringVar(&f.userns, "userns", "", "User namespace to use")
	fs.StringVar(&f.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private)")
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.StringVar(&f.ipc, "ipc", "", "IPC mode to use")
	fs.StringVar(&f.pid, "pid", "", "PID namespace to use")
	fs.StringVar(&f.uts, "uts", "", "UTS namespace to use")
	fs.StringVar(&f.isolation, "isolation", "", "Container isolation technology")
	fs.StringVar(&f.runtime, "runtime", "", "Runtime to use for this container")
	fs.Var(f.sysctls, "sysctl", "Sysctl options")
}

// storageFlags say what is mounted, and where the output goes.
type storageFlags struct {
	volumes, volumesFrom, tmpfs, storageOpt, logOpt opts.ListOpts
	mounts                                          opts.MountOpt
	volumeDriver, logDriver                         string
	shmSize                                         opts.MemBytes
}

func (f *storageFlags) add(fs *pflag.FlagSet) {
	f.volumes, f.volumesFrom, f.tmpfs = opts.NewListOpts(nil), opts.NewListOpts(nil), opts.NewListOpts(nil)
	f.storageOpt, f.logOpt = opts.NewListOpts(nil), opts.NewListOpts(nil)
	fs.VarP(&f.volumes, "volume", "v", "Bind mount a volume")
	fs.Var(&f.volumesFrom, "volumes-from", "Mount volumes from the specified container(s)")
	fs.Var(&f.mounts, "mount", "Attach a filesystem mount to the container")
	fs.Var(&f.tmpfs, "tmpfs", "Mount a tmpfs directory")
	fs.Var(&f.storageOpt, "storage-opt", "Storage driver options for the container")
	fs.StringVar(&f.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	fs.StringVar(&f.logDriver, "log-driver", "", "Logging driver for the container")
	fs.Var(&f.logOpt, "log-opt", "Log driver options")
	fs.Var(&f.shmSize, "shm-size", "Size of /dev/shm")
}

// healthFlags override the image's health check.
type healthFlags struct {
	cmd                                          string
	interval, timeout, startPeriod, startBetween time.Duration
	retries                                      int
	none                                         bool
}

func (f *healthFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.cmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&f.interval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.startPeriod, "health-start-period", 0,
		"Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.startBetween, "health-start-interval", 0,
		"Time between running the check during the start period (ms|s|m|h) (default 0s)")
	fs.IntVar(&f.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.BoolVar(&f.none, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

// lifetimeFlags say how the container ends and what happens then.
type lifetimeFlags struct {
	restart, stopSignal, cidFile string
	stopTimeout                  int
	remove, init                 bool
}

func (f *lifetimeFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.restart, "restart", string(container.RestartPolicyDisabled),
		"Restart policy to apply when a container exits")
	fs.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	fs.BoolVar(&f.remove, "rm", false,
		"Automatically remove the container and its associated anonymous volumes when it exits")
	fs.BoolVar(&f.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	fs.StringVar(&f.cidFile, "cidfile", "", "Write the container ID to the file")
}
