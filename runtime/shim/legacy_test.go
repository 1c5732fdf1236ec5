package shim

import (
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
)

func TestCall(t *testing.T) {
	c, ok := parseCall([]string{"-namespace", "ns", "-address", "/c.sock", "-publish-binary", "/bin/containerd", "-id", "x", "-debug", "start"})
	if want := (call{id: "x", namespace: "ns", address: "/c.sock", debug: true, action: "start"}); c != want || !ok {
		t.Errorf("%+v, %v", c, ok)
	}
	if _, ok := parseCall([]string{"-from-the-future", "start"}); ok {
		t.Error("unknown flag accepted")
	}
	mine, _ := proto.Marshal(&bootapi.BootstrapParams{InstanceID: "x", Namespace: "ns"})
	other, _ := proto.Marshal(&bootapi.BootstrapParams{InstanceID: "io.containerd.runc.v2.Options", Namespace: "\x10\x01"})
	for name, tc := range map[string]struct {
		input []byte
		want  bool
	}{"this call's": {mine, true}, "runtime options": {other, false}, "nothing": {nil, false}, "rubbish": {[]byte{0xff}, false}} {
		if got := c.modern(tc.input); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
