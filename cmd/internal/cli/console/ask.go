package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/term"
)

// Confirm asks unless force is set; anything but y or yes is no, an end of input too.
func (c *Console) Confirm(ctx context.Context, force bool, warning string) (bool, error) {
	if force {
		return true, nil
	}
	line, err := c.Ask(ctx, c.Out, warning+"\nAre you sure you want to continue? [y/N] ")
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}

// Ask writes a question to out and reads one line of the input, without its end. It ends with ctx too, so that a signal
// need not wait for an answer.
func (c *Console) Ask(ctx context.Context, out io.Writer, question string) (string, error) {
	if c.lines == nil {
		c.lines = bufio.NewReader(c.In) // one for all questions: it may read ahead
	}
	fmt.Fprint(out, question)
	type answer struct {
		line string
		err  error
	}
	given := make(chan answer, 1)
	go func() {
		line, err := c.lines.ReadString('\n')
		given <- answer{strings.TrimRight(line, "\r\n"), err}
	}()
	select {
	case a := <-given:
		return a.line, a.err
	case <-ctx.Done(): // the reader waits until the program has ended
		return "", ctx.Err()
	}
}

// AskSecret is Ask on a terminal that does not show what is typed.
func (c *Console) AskSecret(ctx context.Context, out io.Writer, question string) (string, error) {
	state, err := term.SaveState(c.In.FD())
	if err != nil {
		return "", err
	}
	if err := term.DisableEcho(c.In.FD(), state); err != nil {
		return "", err
	}
	defer func() {
		_ = term.RestoreTerminal(c.In.FD(), state)
		fmt.Fprintln(out)
	}()
	return c.Ask(ctx, out, question)
}
