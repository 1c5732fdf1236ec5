package store

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Carry encodes v, a struct, and keeps of the value that it replaces the fields that v's type does not know: a newer daemon
// put them there, and an older one that changes the rest must not lose them. Whoever owns a record alone, as each node its
// own, has no need of it.
func Carry(old []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	was, now := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if len(old) == 0 || json.Unmarshal(old, &was) != nil || json.Unmarshal(b, &now) != nil {
		return b, nil
	}
	t := reflect.TypeOf(v)
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		delete(was, name)
	}
	if len(was) == 0 {
		return b, nil
	}
	for name, value := range was {
		now[name] = value
	}
	return json.Marshal(now)
}
