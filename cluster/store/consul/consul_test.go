package consul

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/cluster/store/journal"
	"github.com/minictl/minictl/cluster/store/journal/journaltest"
	"github.com/minictl/minictl/testing/extstore"
)

// TestConformance runs against the protocol as agent_test.go speaks it.
func TestConformance(t *testing.T) {
	srv := httptest.NewServer(&agent{})
	t.Cleanup(srv.Close)
	conform(t, strings.TrimPrefix(srv.URL, "http://"))
}

// TestConformanceAgent runs the same against Consul's own agent, where it is installed.
func TestConformanceAgent(t *testing.T) {
	addr := extstore.FreeAddr(t)
	args, ok := extstore.Consul(t.TempDir(), addr)
	if !ok {
		t.Skip("Consul's agent is not installed")
	}
	extstore.Start(t, addr, args...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := New(journal.Address{Hosts: []string{addr}, Prefix: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for { // it answers before it has elected itself
		_, _, err := r.Get(t.Context(), "head")
		if err == nil {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("no leader: %v", err)
		}
	}
	conform(t, addr)
}

func conform(t *testing.T, addr string) {
	n := 0
	journaltest.Run(t, func(t *testing.T) func() journal.Remote {
		n++
		a := journal.Address{Hosts: []string{addr}, Prefix: fmt.Sprint("test/", n)}
		return func() journal.Remote {
			r, err := New(a)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
	})
}
