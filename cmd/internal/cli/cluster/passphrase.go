package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// maxPassphrase bounds what is read of a file that may not be the one that was meant, in bytes.
const maxPassphrase = 4096

// passphrase takes it from a file's first line, from the terminal without showing it, or from the first line of standard
// input. A new one is asked for twice: a slip would be noticed when it is too late.
func passphrase(ctx context.Context, c *console.Console, file string, isNew bool) (string, error) {
	var in io.Reader = c.In
	switch {
	case file != "" && file != "-":
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	case c.In.IsTerminal():
		return askPassphrase(ctx, c, isNew)
	}
	p, err := firstLine(in)
	if err == nil && p == "" {
		err = errors.New("the passphrase is empty: give it on standard input or with --passphrase-file")
	}
	return p, err
}

func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxPassphrase)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

func askPassphrase(ctx context.Context, c *console.Console, isNew bool) (string, error) {
	p, err := c.AskSecret(ctx, c.Err, "Passphrase: ")
	if err != nil {
		return "", err
	}
	if p == "" {
		return "", errors.New("the passphrase is empty")
	}
	if !isNew {
		return p, nil
	}
	again, err := c.AskSecret(ctx, c.Err, "The same again: ")
	if err == nil && again != p {
		err = errors.New("the two differ")
	}
	return p, err
}
