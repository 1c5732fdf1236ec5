package store

import "testing"

func TestCarry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ old, want string }{
		{``, `{"labels":{"a":"1"}}`},
		{`{"labels":{"b":"2"}}`, `{"labels":{"a":"1"}}`},
		{`{"labels":{"b":"2"},"taints":["x"],"z":null}`, `{"labels":{"a":"1"},"taints":["x"],"z":null}`},
		{`"torn`, `{"labels":{"a":"1"}}`},
		{`[1]`, `{"labels":{"a":"1"}}`},
	} {
		got, err := Carry([]byte(c.old), struct {
			Labels map[string]string `json:"labels"`
		}{map[string]string{"a": "1"}})
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v", c.old, got, err)
		}
	}
}
