package config

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestClusterStore(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string // the store's address, or what the error says
	}{
		{nil, ":///"},
		{[]string{"--cluster-store=consul://192.168.1.20:8500", "--cluster-advertise=enp0s3:2376"}, "consul://192.168.1.20:8500/minictl"},
		{[]string{"--cluster-store=etcd://h1,h2", "--cluster-store-opt=kv.path=a/b"}, "etcd://h1:2379,h2:2379/a/b"},
		{[]string{"--cluster-store=etcd://h1", "--cluster-store-opt=kv.cacertfile=/none", "--cluster-store-opt=kv.path=a"}, "/none"},
		{[]string{"--cluster-store=redis://h1"}, "want etcd://"},
		{[]string{"--cluster-store=zk://h1", "--cluster-store-opt=discovery.ttl=1"}, "discovery.ttl is not supported"},
		{[]string{"--cluster-advertise=eth0"}, "go with --cluster-store"},
		{[]string{"--cluster-store-opt=kv.path=a"}, "go with --cluster-store"},
	} {
		var cfg Config
		f := pflag.NewFlagSet("daemon", pflag.ContinueOnError)
		cfg.Flags(f)
		err := f.Parse(c.args)
		if err == nil {
			err = cfg.complete()
		}
		got := cfg.Store.String()
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != c.want || err != nil && !strings.Contains(got, c.want) {
			t.Errorf("%v: %s, want %s", c.args, got, c.want)
		}
	}
}
