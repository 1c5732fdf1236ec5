package shim

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// openTimeout bounds the wait for containerd's part to open its end of the input.
const openTimeout = 5 * time.Second

// input is the container's stdin, shared by its clients.
type input struct {
	path string
	end  func()

	mu   sync.Mutex
	file *os.File
	once sync.Once
}

// open opens the write end. Containerd's part opens its read end in the
// background, after Create has returned: bytes written, or an end made, before
// that would be lost with the FIFO's last open end. A FIFO without a reader
// refuses to be opened for writing, which is how to find out.
func (in *input) open() error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(openTimeout); ; <-tick.C {
		f, err := os.OpenFile(in.path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			in.mu.Lock()
			in.file = f
			in.mu.Unlock()
			return nil
		}
		if !errors.Is(err, syscall.ENXIO) || time.Now().After(end) {
			return err
		}
	}
}

// copyFrom feeds the container from one client until that client's input ends.
func (in *input) copyFrom(r io.Reader) {
	buf := make([]byte, 4<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			// A container that closed its stdin, or exited, drops the rest, as with
			// docker, but the client's end still counts.
			_, _ = in.write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// write blocks while the container does not read; one client at a time.
func (in *input) write(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.file == nil {
		return 0, os.ErrClosed
	}
	return in.file.Write(p)
}

// finish ends the container's input.
func (in *input) finish() {
	in.once.Do(func() {
		in.shut()
		in.end()
	})
}

// shut closes the write end, also under a blocked write.
func (in *input) shut() {
	if f := in.file; f != nil {
		f.Close()
	}
}
