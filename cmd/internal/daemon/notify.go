package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/cmd/internal/engine"
)

// notify tells systemd, if it started us, what state we are in (sd_notify(3)).
func notify(log *slog.Logger, state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		log.Warn("tell systemd", "state", state, "err", err)
	}
}

// reloadOnHangup reads the configuration again at every SIGHUP until ctx ends.
func reloadOnHangup(ctx context.Context, log *slog.Logger, hangup <-chan os.Signal, reload func() (engine.Live, error), apply func(engine.Live)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		}
		var now unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail for this clock
		notify(log, fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, now.Nano()/1000))
		live, err := reload()
		if err != nil {
			log.Error("read the configuration again", "err", err)
		} else {
			apply(live)
			log.Info("configuration read again", "debug", live.Debug, "labels", live.Labels)
		}
		notify(log, sd.SdNotifyReady)
	}
}
