package main

import "os"

// ratioDNS is what the project wants to reach, as a share of docker's queries a second.
const ratioDNS = 2

// dnsRepeats is how often each is measured.
const dnsRepeats = 7

// dns measures the resolver in a container, for a name on the other host.
func (b *bench) dns() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	err = b.each(func(e *engine) error {
		second, err := b.second(e)
		if err == nil {
			err = serveProbe(second, self, "dns-far", overlay)
		}
		if err == nil {
			err = serveProbe(e.client, self, "dns-from", overlay)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, m := range []struct{ kind, what string }{{"dns1", "DNS, one client"}, {"dns8", "DNS, eight clients"}} {
		var late pair
		p, err := b.turns(dnsRepeats, func(e *engine) (float64, error) {
			out, err := e.inside("dns-from")(m.kind, "dns-far", netSeconds)
			if err != nil {
				return 0, err
			}
			v, err := numbers(out)
			if err != nil {
				return 0, err
			}
			late.add(e, v[len(v)-1])
			return v[0], nil
		})
		if err != nil {
			return err
		}
		f := versus(m.what, p, ratioDNS)
		f.format, f.more = "%.0f /s", true
		b.table.add(f)
		f = versus("… 99th percentile", late, 1)
		f.format = "%.3f ms"
		b.table.add(f)
	}
	return b.each(func(e *engine) error {
		second, err := b.second(e)
		if err == nil {
			_, err = second.run("rm", "-f", "dns-far")
		}
		if err == nil {
			_, err = e.run("rm", "-f", "dns-from")
		}
		return err
	})
}
