// Package fields holds requests to their word: each field of the API's types does what it says, and a test shows it, or is
// refused by name. A new field in a newer version of the API is neither, and fails the test until somebody decides.
package fields

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// Walk goes over types.
type Walk struct {
	t     *testing.T
	known map[string]string
	texts map[string]string
}

// New begins a walk. known says of each honoured field, such as "Config.User", which test shows it, as WHERE:TEXT: the text
// stands in a test file of one of the folders in where. Without a WHERE that is known the text is a reason.
func New(t *testing.T, known, where map[string]string) *Walk {
	t.Helper()
	w := &Walk{t: t, known: known, texts: map[string]string{}}
	for name, dir := range where {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if filepath.Base(f) == "fields_test.go" {
				continue
			}
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			w.texts[name] += string(b)
		}
	}
	return w
}

// Each goes over a type's fields but some, whose own types are walked. refused is given a pointer to a value of the type with
// one field set, and gives the error that the request comes to.
func (w *Walk) Each(of any, refused func(set any) error, skip ...string) {
	w.t.Helper()
	typ := reflect.TypeOf(of)
	for i := range typ.NumField() {
		f := typ.Field(i)
		if slices.Contains(skip, f.Name) {
			continue
		}
		name := typ.Name() + "." + f.Name
		test, ok := w.known[name]
		delete(w.known, name)
		if ok {
			where, text, found := strings.Cut(test, ":")
			if found && w.texts[where] != "" && !strings.Contains(w.texts[where], text) {
				w.t.Errorf("%s: no test in %s says %q", name, where, text)
			}
			continue
		}
		p := reflect.New(typ)
		Fill(p.Elem().Field(i))
		if err := refused(p.Interface()); !errdefs.IsNotImplemented(err) && !errdefs.IsInvalidArgument(err) {
			w.t.Errorf("%s is neither honoured nor refused: %v", name, err)
		}
	}
}

// Done complains of fields in the list that no type has.
func (w *Walk) Done() {
	w.t.Helper()
	for name := range w.known {
		w.t.Errorf("%s is in the list and not in the API", name)
	}
}

// Fill makes a value that is not the zero one.
func Fill(v reflect.Value) {
	switch v.Interface().(type) { // whose own fields are nobody's to set
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("2001:db8::1")))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.MustParsePrefix("2001:db8::/64")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		Fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		Fill(v.Index(0))
	case reflect.Array:
		Fill(v.Index(0))
	case reflect.Map:
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		Fill(k)
		Fill(e)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(k, e)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				Fill(v.Field(i))
			}
		}
	}
}
