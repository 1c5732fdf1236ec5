package console

import (
	"context"
	"errors"
	"time"
)

// probeTimeout bounds the second attempt that only serves the error's wording.
const probeTimeout = time.Second

// probe dials the daemon once more for the operating system's own error: the client hides it behind docker's wording.
func (c *Console) probe() error {
	cl, err := c.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	conn, err := cl.Dialer()(ctx)
	if err != nil {
		return err
	}
	return errors.Join(conn.Close())
}
