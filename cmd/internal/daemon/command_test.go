package daemon

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/minictl/minictl/cmd/internal/config"
)

// What the command line said is said again whenever the file is read again, values that are lists and maps included.
func TestRepeat(t *testing.T) {
	flags := func() (*config.Config, *pflag.FlagSet) {
		c, f := &config.Config{}, pflag.NewFlagSet("daemon", pflag.ContinueOnError)
		c.Flags(f)
		return c, f
	}
	first, given := flags()
	args := "-H unix:///a,b -H fd:// --log-opt tag={{.ID}},x=y --log-opt max-size=1m --cluster-store-opt kv.path=a --debug --node-name n " +
		"--default-address-pool base=10.10.0.0/16,size=24 --default-address-pool base=fd00:9::/48,size=64 " +
		"--default-network-opt bridge=a=1 --default-network-opt bridge=b=2"
	if err := given.Parse(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	again, to := flags()
	if err := repeat(given, to); err != nil {
		t.Fatal(err)
	}
	if len(first.Log.Config) != 2 || len(first.Hosts) != 2 || len(first.AddressPools) != 2 {
		t.Errorf("read as %+v", first)
	}
	if fixed := first.Fixed(*again); len(fixed) > 0 || again.Debug != first.Debug {
		t.Errorf("%v differ: %+v, %+v", fixed, first, again)
	}
}
