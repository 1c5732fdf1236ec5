package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// newRequest makes a request without a network; a body is JSON.
func newRequest(method, target, body string) *http.Request {
	if body == "" {
		return httptest.NewRequest(method, target, nil)
	}
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

func record(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// do gives the status and the message of one request.
func do(h http.Handler, method, target, contentType, body string) (int, string) {
	r := newRequest(method, target, body)
	r.Header.Del("Content-Type")
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := record(h, r)
	var got struct{ Message string }
	_ = json.Unmarshal(w.Body.Bytes(), &got)
	return w.Code, got.Message
}

// deaf are back ends that must not be reached: any call panics, and shows as 500.
func deaf(t testing.TB) http.Handler {
	t.Helper()
	return New((&fakes{}).config(t))
}

func TestBadInput(t *testing.T) {
	const js = "application/json"
	big := strings.Repeat("x", 1<<20)
	tests := map[string]struct {
		method, target, contentType, body string
		code                              int
		want                              string // beginning of the message
	}{
		"malformed":         {"POST", "/containers/create", js, "{", 400, "invalid JSON: unexpected EOF"},
		"syntax":            {"POST", "/networks/create", js, "{x}", 400, "invalid JSON: invalid character 'x'"},
		"wrong kind":        {"POST", "/networks/create", js, `{"Name":5}`, 400, "invalid JSON: json: cannot unmarshal number"},
		"null":              {"POST", "/containers/create", js, "null", 400, "config cannot be empty in order to create a container"},
		"array":             {"POST", "/containers/create", js, "[]", 400, "invalid JSON: json: cannot unmarshal array"},
		"no config":         {"POST", "/containers/create", js, "{}", 400, "config cannot be empty in order to create a container"},
		"no body":           {"POST", "/containers/create", js, "", 400, "invalid JSON: got EOF while reading request body"},
		"blank body":        {"POST", "/containers/create", js, "  ", 400, "invalid JSON: got EOF while reading request body"},
		"trailing":          {"POST", "/networks/create", js, `{"Name":"ab"} {}`, 400, "unexpected content after JSON"},
		"trailing brace":    {"POST", "/networks/create", js, `{"Name":"ab"}}`, 400, "unexpected content after JSON"},
		"text":              {"POST", "/networks/create", "text/plain", `{}`, 400, `unsupported Content-Type header ("text/plain"): must be 'application/json'`},
		"form":              {"POST", "/containers/x/exec", "application/x-www-form-urlencoded", `{}`, 400, "unsupported Content-Type header"},
		"no type":           {"POST", "/networks/create", "", `{}`, 400, "malformed Content-Type header"},
		"bad type":          {"POST", "/networks/create", "a/b/c", `{}`, 400, "malformed Content-Type header"},
		"bad utf8":          {"POST", "/networks/create", js, "{\"Name\":\"a\xff\"}", 400, "invalid name"},
		"too large":         {"POST", "/networks/create", js, `{"Name":"` + strings.Repeat("x", maxJSONBody) + `"}`, 413, "invalid JSON: more than 4194304 bytes"},
		"too large, spaces": {"POST", "/networks/create", js, `{"Name":"ab"}` + strings.Repeat(" ", maxJSONBody), 413, "invalid JSON: more than 4194304 bytes"},
		"too deep":          {"POST", "/networks/create", js, `{"Labels":` + strings.Repeat("[", 20000), 400, "invalid JSON"},
		"bad address":       {"POST", "/networks/create", js, `{"Name":"ab","IPAM":{"Config":[{"Subnet":"10.0.0/24"}]}}`, 400, "invalid JSON"},
		"bad port":          {"POST", "/containers/create", js, `{"Image":"x","ExposedPorts":{"99999/tcp":{}}}`, 400, "invalid JSON"},
		"NUL":               {"POST", "/containers/create", js, `{"Image":"x","Env":["A\u0000=b"]}`, 400, "invalid JSON: a string in it holds a NUL character"},
		"NUL in a key":      {"POST", "/networks/create", js, `{"Name":"ab","Labels":{"a\u0000":"b"}}`, 400, "invalid JSON: a string in it holds a NUL character"},
		"NUL in a query":    {"GET", "/containers/x/top?ps_args=a%00", "", "", 400, `invalid query: parameter "ps_args" holds a NUL character`},
		"bad mac":           {"POST", "/containers/create", js, `{"Image":"x","MacAddress":"zz"}`, 400, "invalid JSON"},

		"network, 1 MB name":   {"POST", "/networks/create", js, `{"Name":"` + big + `"}`, 400, "invalid name"},
		"network, no name":     {"POST", "/networks/create", js, `{"Name":" "}`, 400, "invalid name: name is empty"},
		"network, no body":     {"POST", "/networks/create", "", "", 400, "invalid name: name is empty"},
		"network, control":     {"POST", "/networks/create", js, `{"Name":"a\u0007b"}`, 400, "invalid name"},
		"connect nobody":       {"POST", "/networks/x/connect", js, `{"Container":""}`, 400, "invalid container name or ID: value is empty"},
		"disconnect nobody":    {"POST", "/networks/x/disconnect", "", "", 400, "invalid container name or ID: value is empty"},
		"container, 1 MB name": {"POST", "/containers/create?name=" + big, js, `{"Image":"x"}`, 400, "Invalid container name (xxx"},
		"container, short":     {"POST", "/containers/create?name=a", js, `{"Image":"x"}`, 400, "Invalid container name (a), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"},
		"container, dash":      {"POST", "/containers/create?name=-ab", js, `{"Image":"x"}`, 400, "Invalid container name (-ab), only"},
		"container, slash":     {"POST", "/containers/create?name=a/b", js, `{"Image":"x"}`, 400, "Invalid container name (a/b), only"},
		"rename, empty":        {"POST", "/containers/x/rename", "", "", 400, "Neither old nor new names may be empty"},
		"rename, bad":          {"POST", "/containers/x/rename?name=%20", "", "", 400, "Invalid container name ( ), only"},

		"query":           {"GET", "/containers/json?a=%zz", "", "", 400, "invalid query"},
		"query semicolon": {"GET", "/containers/json?a=1;b=2", "", "", 400, "invalid query"},
		"limit":           {"GET", "/containers/json?limit=ten", "", "", 400, `invalid value "ten" for "limit"`},
		"limit, huge":     {"GET", "/containers/json?limit=99999999999999999999", "", "", 400, "invalid value"},
		"timeout":         {"POST", "/containers/x/stop?t=1.5", "", "", 400, `invalid value "1.5" for "t"`},
		"restart timeout": {"POST", "/containers/x/restart?t=x", "", "", 400, `invalid value "x" for "t"`},
		"resize":          {"POST", "/containers/x/resize?h=a&w=1", "", "", 400, `invalid resize height "a": invalid syntax`},
		"resize, missing": {"POST", "/exec/x/resize?h=1", "", "", 400, `invalid resize width "": invalid syntax`},
		"resize, range":   {"POST", "/exec/x/resize?h=1&w=4294967296", "", "", 400, `invalid resize width "4294967296": value out of range`},
		"condition":       {"POST", "/containers/x/wait?condition=soon", "", "", 400, `invalid condition: "soon"`},
		"no stream":       {"GET", "/containers/x/logs", "", "", 400, "Bad parameters: you must choose at least one stream"},
		"since":           {"GET", "/containers/x/logs?stdout=1&since=yesterday", "", "", 400, `invalid value "yesterday" for "since"`},
		"events until":    {"GET", "/events?until=1.2.3", "", "", 400, `invalid value "1.2.3" for "until"`},
		"filter":          {"GET", "/containers/json?filters=x", "", "", 400, "invalid filter"},
		"filter, shape":   {"GET", "/networks?filters={\"name\":5}", "", "", 400, `invalid filter "name"`},
		"filter, 1 MB":    {"GET", "/images/json?filters=" + big, "", "", 400, "invalid filter"},
		"detach keys":     {"POST", "/containers/x/attach?detachKeys=shift-x", "", "", 400, "Invalid detach keys (shift-x) provided"},
		"start body":      {"POST", "/containers/x/start", js, `{"Binds":[]}`, 400, "starting container with non-empty request body"},
		"exec, no cmd":    {"POST", "/containers/x/exec", js, "{}", 400, "No exec command specified"},
		"pull, bad name":  {"POST", "/images/create?fromImage=UPPER&tag=x", "", "", 400, "invalid reference format"},
		"pull, bad tag":   {"POST", "/images/create?fromImage=a&tag=-", "", "", 400, "invalid reference format"},
		"pull, nothing":   {"POST", "/images/create", "", "", 400, "missing parameter: fromImage"},
		"tag, nothing":    {"POST", "/images/a/tag", "", "", 400, "invalid reference format"},
		"swarm port":      {"POST", "/swarm/init", js, `{"DataPathPort":70000}`, 400, "invalid data path port 70000"},
		"swarm join":      {"POST", "/swarm/join", js, `{}`, 400, "at least 1 RemoteAddr is required to join"},
		"cluster join":    {"POST", "/cluster/join", js, `{"Token":"x"}`, 400, "join cluster: token and address"},
		"cluster init":    {"POST", "/cluster/init", js, `{"DataPathPort":-1}`, 400, "invalid JSON"},
		"rotate by GET":   {"GET", "/cluster/token?rotate=1", "", "", 400, "rotate cluster token: use POST"},
	}
	h := deaf(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, msg := do(h, tt.method, tt.target, tt.contentType, tt.body)
			if code != tt.code || !strings.HasPrefix(msg, tt.want) {
				t.Errorf("%d %q, want %d %q…", code, msg, tt.code, tt.want)
			}
			if len(msg) > 1000 {
				t.Errorf("message of %d bytes", len(msg))
			}
		})
	}
}

// TestNoNUL: what only looks like one is taken.
func TestNoNUL(t *testing.T) {
	for doc, want := range map[string]bool{
		`{"a":"\\u0000"}`: false, `{"a":"\u0000"}`: true, `{"a":[{"b":["c\u0000"]}]}`: true, `["\\\u0000"]`: true, `{"\u0000":1}`: true, `{"a":"\u0001"}`: false, `5`: false,
	} {
		if err := refuseNUL([]byte(doc)); (err != nil) != want {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

func TestGoodNames(t *testing.T) {
	for _, name := range []string{"web", "/web", "a1", "0_.-", strings.Repeat("x", 255)} {
		if err := checkContainerName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"a", "my net", "proj_default", "näme", strings.Repeat("x", 255)} {
		if err := checkNetworkName(name); err != nil {
			t.Error(err)
		}
	}
}

func TestCreateBody(t *testing.T) {
	const mac = "02:42:0a:00:00:09"
	tests := map[string]struct{ body, network, want string }{
		"moves to the mode's network": {`{"Image":"x","MacAddress":"` + mac + `","HostConfig":{"NetworkMode":"net"}}`, "net", mac},
		"default":                     {`{"Image":"x","MacAddress":"` + mac + `"}`, "default", mac},
		"keeps the endpoint's own": {`{"Image":"x","MacAddress":"` + mac + `","HostConfig":{"NetworkMode":"net"},` +
			`"NetworkingConfig":{"EndpointsConfig":{"net":{"MacAddress":"02:42:0a:00:00:01"}}}}`, "net", "02:42:0a:00:00:01"},
		"null endpoint": {`{"Image":"x","MacAddress":"` + mac + `","HostConfig":{"NetworkMode":"net"},` +
			`"NetworkingConfig":{"EndpointsConfig":{"net":null}}}`, "net", mac},
		"unknown fields": {`{"Image":"x","Nonsense":1,"MacAddress":"` + mac + `"}`, "default", mac},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := &fakes{}
			var got container.CreateRequest
			f.c.create = func(_ string, req container.CreateRequest) (container.CreateResponse, error) {
				got = req
				return container.CreateResponse{ID: "1"}, nil
			}
			if code, msg := do(New(f.config(t)), "POST", "/v1.43/containers/create", "application/json; charset=utf-8", tt.body); code != 201 {
				t.Fatal(code, msg)
			}
			if mac := got.NetworkingConfig.EndpointsConfig[tt.network].MacAddress.String(); mac != tt.want || got.Image != "x" {
				t.Errorf("MAC %q, image %q", mac, got.Image)
			}
		})
	}
}

func TestFilters(t *testing.T) {
	tests := []struct {
		in   string
		want Filters
	}{
		{"", nil},
		{"{}", Filters{}},
		{`{"label":{"a=b":true,"c":false}}`, Filters{"label": {"a=b": true, "c": true}}},
		{`{"label":["a=b","c"]}`, Filters{"label": {"a=b": true, "c": true}}},
		{`{"a":["x"],"b":{"y":true}}`, Filters{"a": {"x": true}, "b": {"y": true}}},
		{`{"a":[]}`, Filters{"a": {}}},
		{`{"a":null}`, Filters{"a": {}}},
		{`null`, Filters{}},
	}
	for _, tt := range tests {
		got, err := parseFilters(tt.in)
		if err != nil || !reflect.DeepEqual(got, tt.want) && len(got)+len(tt.want) > 0 {
			t.Errorf("%s: %v %v, want %v", tt.in, got, err, tt.want)
		}
		for term, values := range got {
			if values == nil {
				t.Errorf("%s: nil set for %s", tt.in, term)
			}
		}
	}
}

func TestPanicBecomes500(t *testing.T) {
	f := &fakes{}
	f.n.inspect = func(ref string) (network.Inspect, error) {
		if ref == "abort" {
			panic(http.ErrAbortHandler)
		}
		panic("boom")
	}
	h := New(f.config(t))
	code, msg := do(h, "GET", "/networks/x", "", "")
	if code != 500 || !strings.Contains(msg, "internal error") || strings.Contains(msg, "boom") {
		t.Error(code, msg)
	}
	if log := f.log.String(); !strings.Contains(log, "boom") || !strings.Contains(log, "input_test.go") {
		t.Errorf("log lacks panic or stack: %s", log)
	}
	defer func() {
		if p := recover(); p != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			t.Errorf("recovered %v", p)
		}
	}()
	do(h, "GET", "/networks/abort", "", "")
}

func TestErrorsAreLoggedOnceAndOnlyOurs(t *testing.T) {
	f := &fakes{}
	errs := map[string]error{"mine": errors.New("disk broke"), "theirs": notFound("network theirs not found")}
	f.n.inspect = func(ref string) (network.Inspect, error) { return network.Inspect{}, errs[ref] }
	h := New(f.config(t))
	if code, msg := do(h, "GET", "/networks/theirs", "", ""); code != 404 || msg != "network theirs not found" {
		t.Error(code, msg)
	}
	if f.log.Len() != 0 {
		t.Errorf("a client's error was logged: %s", f.log.String())
	}
	if code, msg := do(h, "GET", "/networks/mine", "", ""); code != 500 || msg != "disk broke" {
		t.Error(code, msg)
	}
	if strings.Count(f.log.String(), "disk broke") != 1 {
		t.Errorf("log: %s", f.log.String())
	}
}

func TestNotModifiedHasNoBody(t *testing.T) {
	f := &fakes{}
	f.c.start = func(context.Context, string) error { return errNotModified }
	w := httptest.NewRecorder()
	New(f.config(t)).ServeHTTP(w, httptest.NewRequest("POST", "/containers/x/start", nil))
	if w.Code != 304 || w.Body.Len() != 0 {
		t.Error(w.Code, w.Body)
	}
}

func FuzzFilters(f *testing.F) {
	for _, s := range []string{"", "{}", `{"a":["b"]}`, `{"a":{"b":true}}`, "null", "[", `{"a":null}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseFilters(s)
		if err != nil {
			if httpStatus(err) != 400 {
				t.Fatalf("%d for %q", httpStatus(err), s)
			}
			return
		}
		text, _ := json.Marshal(got)
		again, err := parseFilters(string(text))
		if err != nil || len(again) != len(got) {
			t.Fatalf("%s does not survive itself: %v", text, err)
		}
	})
}

// FuzzBodies gives each body to each decoder. Whatever comes, it is taken or refused with a 4xx.
func FuzzBodies(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", `{"Image":"x","HostConfig":{"NetworkMode":"n","PortBindings":{"80/tcp":[{"HostIp":"::","HostPort":"1-2"}]}}}`,
		`{"Image":"x","MacAddress":"02:42:0a:00:00:09","NetworkingConfig":{"EndpointsConfig":{"default":null}}}`,
		`{"Cmd":["a"],"ConsoleSize":[1,2]}`, `{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.0/24"}]}}`,
		`{"Container":"c","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.0.0.9"}}}`, `{"Detach":true}`,
		`{"AdvertiseAddr":"eth0:2377","RemoteAddrs":["a:2377"]}`, `{"Token":"t","Remote":"r"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range bodies() {
			err := decodeJSON(io.LimitReader(strings.NewReader(string(b)), maxJSONBody), v)
			if body, ok := v.(*createBody); ok && err == nil {
				_, err = body.request()
			}
			if err != nil && httpStatus(err) != 400 {
				t.Fatalf("%T: %d for %q: %v", v, httpStatus(err), b, err)
			}
		}
	})
}
