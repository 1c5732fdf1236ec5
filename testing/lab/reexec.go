package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// Environment of the processes that hold the lab's namespaces.
const (
	roleEnv  = "MINICTL_LAB_ROLE"  // what the process is: one of the roles below
	confEnv  = "MINICTL_LAB_CONF"  // its configuration, JSON
	readyEnv = "MINICTL_LAB_READY" // pid of a process whose main called Reexec
)

const (
	roleUnderlay = "underlay"  // the bridge's namespace and its DNS server
	roleBoot     = "host-boot" // a host's pid 1 before it has its cgroup namespace
	roleHost     = "host"      // a host's pid 1
)

// Main runs a package's tests with the lab available; TestMain calls it and nothing else. It does not return.
func Main(m interface{ Run() int }) {
	Reexec()
	os.Exit(m.Run())
}

// Reexec must be the first call of a program that makes labs: started again as a namespace's holder, the program never
// gets past it.
func Reexec() {
	role := os.Getenv(roleEnv)
	var err error
	switch role {
	case "":
		// Remembered in the environment under our own pid: a package variable would do as well, but a child that
		// inherits the environment must not believe it.
		os.Setenv(readyEnv, strconv.Itoa(os.Getpid()))
		return
	case roleUnderlay:
		err = underlayMain()
	case roleBoot:
		err = bootMain()
	case roleHost:
		err = hostMain()
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: %s: %v\n", role, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// holder is a process that keeps namespaces alive. It reads commands from its standard input, a line each, and answers
// each with one line on descriptor 3: "ok", or an error's text. End of input ends it, and with it all it holds.
type holder struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Reader
	pipe    *os.File
	log     *os.File
}

func startHolder(role string, conf any, logPath string, flags uintptr) (*holder, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	js, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, logFile.Close())
	}
	defer w.Close()
	cmd := &exec.Cmd{Path: self, Args: []string{"minictl-lab-" + role}, Stdout: logFile, Stderr: logFile}
	cmd.Env = append(os.Environ(), roleEnv+"="+role, confEnv+"="+string(js))
	cmd.ExtraFiles = []*os.File{w}
	// A session of its own, so that Ctrl-C in the terminal reaches the program alone and it can clean up in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, r.Close(), logFile.Close())
	}
	return &holder{cmd: cmd, in: in, answers: bufio.NewReader(r), pipe: r, log: logFile}, nil
}

func (h *holder) pid() int { return h.cmd.Process.Pid }

// call sends one command and waits for its answer.
func (h *holder) call(line string) error {
	if _, err := io.WriteString(h.in, line+"\n"); err != nil {
		return fmt.Errorf("%s: %w (see %s)", line, err, h.log.Name())
	}
	answer, err := h.answers.ReadString('\n')
	if err != nil {
		text, _ := os.ReadFile(h.log.Name())
		return fmt.Errorf("%s: no answer: %w: %s", line, err, strings.TrimSpace(string(text)))
	}
	if answer = strings.TrimSpace(answer); answer != "ok" {
		return fmt.Errorf("%s: %s", line, answer)
	}
	return nil
}

// stop kills the process and waits until it is gone; for a host's pid 1 that is when every process of the host is gone.
func (h *holder) stop() error {
	err := h.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	h.in.Close()
	var exit *exec.ExitError
	if werr := h.cmd.Wait(); werr != nil && !errors.As(werr, &exit) {
		err = errors.Join(err, werr)
	}
	return errors.Join(err, h.pipe.Close(), h.log.Close())
}

// serve is the other side of call: it runs in the holder until its input ends.
func serve(do func(verb string, args []string) error) error {
	out := os.NewFile(3, "answers")
	sc := bufio.NewScanner(os.Stdin)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) == 0 {
			continue
		}
		answer := "ok"
		if err := do(f[0], f[1:]); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return err
		}
	}
	return sc.Err()
}

// conf decodes the holder's configuration.
func conf(v any) error {
	if err := json.Unmarshal([]byte(os.Getenv(confEnv)), v); err != nil {
		return fmt.Errorf("decode configuration: %w", err)
	}
	return nil
}
