package oci

import (
	"reflect"
	"testing"

	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/testing/fields"
)

// TestEveryLimitUpdates: an update changes a limit or refuses to by name; it never leaves one silently alone.
func TestEveryLimitUpdates(t *testing.T) {
	typ := reflect.TypeFor[mobycontainer.Resources]()
	for i := range typ.NumField() {
		var change mobycontainer.Resources
		field := reflect.ValueOf(&change).Elem().Field(i)
		fields.Fill(field)
		if len(container.FixedResources(&change)) > 0 {
			continue
		}
		after, _ := container.UpdateResources(mobycontainer.Resources{}, change) // 1 is too small for some of them
		if got := reflect.ValueOf(after).Field(i); !reflect.DeepEqual(got.Interface(), field.Interface()) {
			t.Errorf("an update to %s: %v is neither done nor refused: %v", typ.Field(i).Name, field.Interface(), got.Interface())
		}
	}
}
