package nl

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
)

// solicitedTime bounds the wait for a multicast group: the kernel joins it from a work queue, normally within a
// millisecond.
const solicitedTime = 10 * time.Second

// AwaitSolicited returns when a device that is up, in the calling thread's namespace, hears the questions for these
// addresses. The kernel answers a neighbour solicitation (RFC 4861) only once it has joined the address's solicited-node
// group, and it joins some time after the address was added: whoever asks before that asks again a second later. IPv4
// addresses are heard at once.
func AwaitSolicited(ctx context.Context, device string, addrs ...netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, solicitedTime)
	defer cancel()
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for _, a := range addrs {
		for a.Is6() {
			b, err := os.ReadFile("/proc/thread-self/net/igmp6")
			if errors.Is(err, os.ErrNotExist) || err == nil && joined(string(b), device, a) {
				break
			}
			if err != nil {
				return fmt.Errorf("read multicast groups: %w", err)
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait until %s hears questions for %s: %w", device, a, ctx.Err())
			case <-tick.C:
			}
		}
	}
	return nil
}

// joined looks the solicited-node group of an address (RFC 4291 section 2.7.1) up in the kernel's list: a line of index,
// device, group in 32 hexadecimal digits, and numbers.
func joined(list, device string, a netip.Addr) bool {
	ip := a.As16()
	group := "ff0200000000000000000001ff" + hex.EncodeToString(ip[13:])
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == device && f[2] == group {
			return true
		}
	}
	return false
}
