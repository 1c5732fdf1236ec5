package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// apiRoute is one of the Engine API's, as bad input is tried on it. ID stands for the object's name.
type apiRoute struct {
	method, path string
	body         bool     // a JSON body is read
	numbers      []string // query parameters that are numbers or times
	good         string   // the name of an object that is there: "" where a request that is good by chance would do harm
}

// apiRoutes are all that take anything from a client beyond their name.
func apiRoutes() []apiRoute {
	const box, netw, vol, img = "box", "back", "data", "busybox"
	return []apiRoute{
		{"GET", "/events?until=1", false, []string{"since", "until"}, ""},
		{"GET", "/system/df", false, []string{"type"}, ""},
		{"POST", "/containers/create", true, nil, ""},
		{"GET", "/containers/json", false, []string{"limit"}, ""},
		{"POST", "/containers/prune?filters={%22label%22:[%22none%22]}", false, nil, ""},
		{"GET", "/containers/ID/json", false, nil, box},
		{"POST", "/containers/ID/start", false, nil, box},
		{"POST", "/containers/ID/stop", false, []string{"t"}, ""},
		{"POST", "/containers/ID/restart", false, []string{"t"}, ""},
		{"POST", "/containers/ID/kill", false, []string{"signal"}, ""},
		{"POST", "/containers/ID/rename", false, nil, box},
		{"POST", "/containers/ID/update", true, nil, box},
		{"POST", "/containers/ID/wait", false, []string{"condition"}, ""},
		{"POST", "/containers/ID/attach", false, nil, ""},
		{"POST", "/containers/ID/resize?h=1&w=1", false, []string{"h", "w"}, box},
		{"POST", "/containers/ID/pause", false, nil, ""},
		{"POST", "/containers/ID/unpause", false, nil, ""},
		{"GET", "/containers/ID/logs?stdout=1", false, []string{"tail", "since", "until"}, box},
		{"GET", "/containers/ID/stats?stream=0&one-shot=1", false, nil, box},
		{"GET", "/containers/ID/top", false, []string{"ps_args"}, box},
		{"DELETE", "/containers/ID", false, nil, ""},
		{"GET", "/containers/ID/archive", false, []string{"path"}, box},
		{"HEAD", "/containers/ID/archive", false, []string{"path"}, box},
		{"PUT", "/containers/ID/archive?path=/tmp", false, []string{"path"}, box},
		{"GET", "/containers/ID/changes", false, nil, box},
		{"GET", "/containers/ID/export", false, nil, ""},
		{"POST", "/containers/ID/exec", true, nil, box},
		{"POST", "/exec/ID/start", true, nil, ""},
		{"POST", "/exec/ID/resize?h=1&w=1", false, []string{"h", "w"}, ""},
		{"GET", "/exec/ID/json", false, nil, ""},
		{"POST", "/commit?container=nosuch", true, []string{"container", "repo", "changes"}, ""},
		{"GET", "/images/json", false, nil, ""},
		{"POST", "/images/load", false, nil, ""},
		{"POST", "/images/create?fromSrc=-", false, []string{"repo", "platform", "changes"}, ""},
		{"POST", "/images/prune?filters={%22label%22:[%22none%22]}", false, nil, ""},
		{"GET", "/images/ID/json", false, nil, img},
		{"GET", "/images/ID/history", false, nil, img},
		{"POST", "/images/ID/tag", false, []string{"repo"}, img},
		{"GET", "/images/ID/get", false, nil, ""},
		{"GET", "/images/get?names=nosuch", false, []string{"names"}, ""},
		{"POST", "/images/ID/push", false, []string{"tag"}, ""},
		{"DELETE", "/images/ID", false, nil, ""},
		{"GET", "/networks", false, nil, ""},
		{"POST", "/networks/create", true, nil, ""},
		{"GET", "/networks/ID", false, []string{"scope"}, netw},
		{"POST", "/networks/ID/connect", true, nil, netw},
		{"POST", "/networks/ID/disconnect", true, nil, netw},
		{"DELETE", "/networks/ID", false, nil, ""},
		{"POST", "/networks/prune?filters={%22label%22:[%22none%22]}", false, nil, ""},
		{"GET", "/volumes", false, nil, ""},
		{"POST", "/volumes/create", true, nil, ""},
		{"GET", "/volumes/ID", false, nil, vol},
		{"DELETE", "/volumes/ID", false, nil, ""},
		{"POST", "/volumes/prune?filters={%22label%22:[%22none%22]}", false, nil, ""},
		{"POST", "/swarm/join", true, nil, ""},
		{"GET", "/nodes", false, nil, ""},
		{"GET", "/nodes/ID", false, nil, "host1"},
		{"POST", "/nodes/ID/update?version=0", true, []string{"version"}, "host1"},
		{"DELETE", "/nodes/ID", false, nil, ""},
		{"GET", "/tasks", false, nil, ""},
		{"POST", "/cluster/join", true, nil, ""},
		{"POST", "/cluster/find", true, nil, ""},
		{"POST", "/cluster/restore", true, nil, ""},
	}
}

// badNames are in the path as they stand.
func badNames() []string {
	return []string{
		"nosuch", "%00", "a%00b", "%ff%fe", "%20", "%0a", "-", "..%2f..%2fetc", "%2e%2e", "a%2fb%2fc%2fd", "%25", "%7b%7d", "😀",
		"sha256:zz", "@", ":", "a@sha256:00", strings.Repeat("0", 64), strings.Repeat("x", 100_000),
	}
}

// badNumbers are values for parameters that are numbers, times, signals, conditions or paths.
func badNumbers() []string {
	return []string{"-1", "99999999999999999999", "-99999999999999999999", "1e9", "NaN", "0x10", "abc", "%00", "%ff", "%20", "1.5.5", strings.Repeat("9", 5000)}
}

// badBodies are none that any route takes.
func badBodies() []string {
	return []string{
		"{", "[]", `"x"`, "5", "nul", "\x00", "\xff\xfe", `{"Name":5,"Image":5,"Container":5,"Cmd":5,"Memory":"x","RemoteAddrs":5,"Token":5,"Role":5}`,
		`{"a":1} trailing`, `{} {}`, strings.Repeat("[", 100_000), `{"Labels":` + strings.Repeat(`{"a":`, 20_000),
		`{"Name":"` + strings.Repeat("n", 1<<20) + `","Image":"x","Container":"` + strings.Repeat("c", 1<<20) + `"}`,
	}
}

// badWishes are parts of a container that nobody can have, as create takes them: docker refuses some only at start.
func badWishes() []string {
	long := strings.Repeat("l", 300)
	config := []string{
		`"Hostname":"` + long + `"`, `"Hostname":"a\u0000b"`, `"Hostname":"a b/c"`, `"Domainname":"\n"`, `"User":"a\u0000"`, `"User":"nosuch"`, `"User":"99999999999999"`, `"User":":-1"`,
		`"Env":["=x"]`, `"Env":["A\u0000=b"]`, `"Env":[""]`, `"Cmd":["\u0000"]`, `"Cmd":[""]`, `"WorkingDir":"rel"`, `"WorkingDir":"/a\u0000"`, `"Entrypoint":[""]`,
		`"Healthcheck":{"Test":["X"]}`, `"Healthcheck":{"Test":["CMD"],"Interval":-1}`, `"Healthcheck":{"Test":["CMD","true"],"Interval":1}`, `"Healthcheck":{"Retries":-1}`,
		`"StopSignal":"NOPE"`, `"StopSignal":"999"`, `"StopTimeout":-5`, `"Labels":{"":""}`, `"Volumes":{"rel":{}}`, `"Volumes":{"/":{}}`, `"Volumes":{"/a\u0000":{}}`,
		`"ExposedPorts":{"80/xxx":{}}`, `"ExposedPorts":{"-1/tcp":{}}`, `"ExposedPorts":{"":{}}`, `"Image":""`, `"Image":"UPPER"`, `"Image":"nosuch"`, `"Image":"` + long + `"`,
		`"NetworkingConfig":{"EndpointsConfig":{"back":{"IPAMConfig":{"IPv4Address":"1.2.3.4"}}}}`,
		`"NetworkingConfig":{"EndpointsConfig":{"back":null}}`, `"NetworkingConfig":null`, `"Healthcheck":null`, `"OnBuild":[null]`, `"Volumes":{"/v":null}`,
		`"NetworkingConfig":{"EndpointsConfig":{"back":{"Aliases":["\u0000","` + long + `"]}}}`, `"NetworkingConfig":{"EndpointsConfig":{"\u0000":{}}}`,
	}
	host := []string{
		`"Memory":-5`, `"Memory":1`, `"Memory":9223372036854775807`, `"MemorySwap":-7`, `"MemoryReservation":-1`, `"NanoCpus":-1`, `"NanoCpus":9223372036854775807`,
		`"CpuShares":-1`, `"CpuPeriod":-1`, `"CpuQuota":-1`, `"CpuPeriod":1`, `"CpusetCpus":"x"`, `"CpusetCpus":"999"`, `"CpusetMems":"7-3"`, `"PidsLimit":-99`, `"ShmSize":-1`,
		`"OomScoreAdj":5000`, `"Binds":["x\u0000:/x"]`, `"Binds":["x"]`, `"Binds":[":"]`, `"Binds":["/a:/b:zz"]`, `"Binds":["/a:rel"]`, `"Binds":["a/b:/x"]`, `"Binds":["/a:/b","/c:/b"]`,
		`"PortBindings":{"80/tcp":[{"HostPort":"99999"}]}`, `"PortBindings":{"80/tcp":[{"HostPort":"-1"}]}`, `"PortBindings":{"80/tcp":[{"HostPort":"9-1"}]}`, `"PortBindings":{"80/tcp":[{"HostIp":"x"}]}`,
		`"NetworkMode":"bridge","PortBindings":{"80/tcp":[{"HostIp":"9.9.9.9","HostPort":"80"}]}`, `"NetworkMode":"bridge","PortBindings":{"80/sctp":[{"HostPort":"80"}]}`, `"Ulimits":[{"Name":"zz"}]`, `"Ulimits":[{"Name":"nofile","Soft":9,"Hard":1}]`, `"Ulimits":[null]`,
		`"Devices":[{"PathOnHost":"/nope"}]`, `"Devices":[{}]`, `"DeviceCgroupRules":["x"]`, `"Dns":["x"]`, `"ExtraHosts":["x"]`, `"ExtraHosts":["a:b\n"]`, `"Sysctls":{"x":"y"}`, `"Sysctls":{"net.ipv4.ip_forward":"z"}`, `"Sysctls":{"../../x":"1"}`,
		`"CapAdd":["NOPE"]`, `"CapDrop":["\u0000"]`, `"SecurityOpt":["x"]`, `"SecurityOpt":["seccomp={"]`, `"SecurityOpt":["apparmor=nope"]`, `"LogConfig":{"Type":"nope"}`, `"LogConfig":{"Config":{"max-size":"x"}}`, `"LogConfig":{"Config":{"nope":"x"}}`,
		`"RestartPolicy":{"Name":"nope"}`, `"RestartPolicy":{"Name":"always","MaximumRetryCount":3}`, `"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":-1}`,
		`"NetworkMode":"container:nosuch"`, `"NetworkMode":"container:"`, `"NetworkMode":"nosuch"`, `"NetworkMode":"\u0000"`, `"NetworkMode":"` + long + `"`, `"IpcMode":"x"`, `"PidMode":"x"`, `"PidMode":"container:nosuch"`, `"UTSMode":"x"`, `"UsernsMode":"x"`, `"CgroupnsMode":"x"`, `"Cgroup":"x"`,
		`"Runtime":"nope"`, `"Isolation":"x"`, `"Tmpfs":{"rel":""}`, `"Tmpfs":{"/x":"nope"}`, `"Tmpfs":{"/x":"size=99999999999999999999"}`, `"VolumesFrom":["nosuch"]`, `"VolumesFrom":[""]`, `"VolumesFrom":["box:zz"]`, `"NetworkMode":"back","Links":["nosuch"]`, `"GroupAdd":["nosuch"]`, `"GroupAdd":["-1"]`, `"StorageOpt":{"x":"y"}`, `"VolumeDriver":"nope"`, `"CgroupParent":"../../x"`, `"BlkioWeight":5`,
		`"Mounts":[{"Type":"x"}]`, `"Mounts":[{}]`, `"Mounts":[{"Type":"bind","Source":"/nope","Target":"/x"}]`, `"Mounts":[{"Type":"volume","Target":"rel"}]`, `"Mounts":[{"Type":"tmpfs","Target":"/x","Source":"y"}]`, `"Mounts":[{"Type":"tmpfs","Target":"/x","TmpfsOptions":{"SizeBytes":-1}}]`, `"Mounts":[{"Type":"volume","Source":"a/b","Target":"/x"}]`,
		`"BlkioWeightDevice":[null]`, `"Mounts":[null]`, `"PortBindings":{"80/tcp":null}`, `"PortBindings":{"80/tcp":[null]}`, `"DeviceRequests":[null]`, `"Devices":[null]`, `"LogConfig":null`,
		`"MaskedPaths":["rel"]`, `"ReadonlyPaths":["\u0000"]`, `"ConsoleSize":[-1,-1]`, `"AutoRemove":true,"RestartPolicy":{"Name":"always"}`,
	}
	const quick = `"HostConfig":{"NetworkMode":"none"` // what starts all the same shall not take long; a later value counts
	for i := range config {
		config[i] += "," + quick + "}"
	}
	for _, h := range host {
		config = append(config, quick+","+h+"}")
	}
	return config
}

// badFilters are values of the filters parameter.
func badFilters() []string {
	return []string{
		"x", "[]", "5", `{"label":5}`, `{"label":[5]}`, `{"nosuchfilter":["x"]}`, `{"\u0000":["\u0000"]}`, `{"until":["x"]}`, `{"until":["-1"]}`,
		`{"dangling":["maybe"]}`, `{"status":["nosuch"]}`, `{"exited":["x"]}`, `{"before":["nosuch"]}`, `{"since":["nosuch"]}`, `{"health":["x"]}`,
		`{"type":["x"]}`, `{"scope":["x"]}`, `{"is-task":["x"]}`, `{"publish":["x/y/z"]}`, `{"reference":["["]}`, `{"name":["("]}`, `{"id":["["]}`, `{"driver":["x"]}`,
	}
}

// TestBadRequests: whatever comes to any route, the daemon says what is wrong with it in docker's form, calls it the client's
// fault, and goes on.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("network", "create", "back")
	h.MustMinictl("volume", "create", "data")
	h.MustMinictl("run", "-d", "--name", "box", "busybox", "sleep", "600")
	b := &badClient{t: t, h: h}
	for _, r := range apiRoutes() {
		path := strings.Replace(r.path, "ID", "nosuch", 1)
		b.try(r.method, path, "application/json", "")
		b.try(r.method, with(path, "nosuchparameter=1&nosuchparameter=%00"), "", "")
		b.try(r.method, with(path, "x=%zz"), "", "")
		b.try(r.method, with(path, "x="+strings.Repeat("q", 100_000)), "", "")
		for _, m := range []string{"PATCH", "TRACE", "OPTIONS", "PUT", "nonsense"} {
			if m != r.method {
				b.try(m, path, "", "")
			}
		}
		if strings.Contains(r.path, "ID") {
			for _, name := range badNames() {
				b.try(r.method, strings.Replace(r.path, "ID", name, 1), "", "")
			}
		}
		name := r.good
		if name == "" {
			name = "nosuch"
		}
		path = strings.Replace(r.path, "ID", name, 1)
		for _, key := range r.numbers {
			for _, v := range badNumbers() {
				b.try(r.method, with(path, key+"="+v), "", "")
			}
		}
		if r.body {
			for _, body := range badBodies() {
				b.try(r.method, path, "application/json", body)
			}
			for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "a/b/c", "\xff", strings.Repeat("j", 10_000)} {
				b.wants4xx(r.method, path, kind, `{"Image":"busybox"}`)
			}
		}
		if r.method == "GET" && !strings.Contains(r.path, "ID") || strings.HasPrefix(strings.SplitN(r.path, "?", 2)[0], "/") && strings.Contains(r.path, "/prune") {
			for _, f := range badFilters() {
				b.try(r.method, with(strings.SplitN(path, "?filters", 2)[0], "filters="+escape(f)), "", "")
			}
		}
	}
	for _, archive := range []string{"", "x", strings.Repeat("\x00", 1024), strings.Repeat("\xff", 2048), "\x1f\x8b\x08"} {
		b.wants4xx("POST", "/images/load", "application/x-tar", archive+"junk")
		b.try("PUT", "/containers/box/archive?path=/tmp", "application/x-tar", archive)
	}
	for _, c := range [][2]string{
		{"/containers/box/update", `{"Ulimits":[null]}`}, {"/containers/box/update", `{"RestartPolicy":null,"Devices":[null]}`},
		{"/containers/box/update", `{"Memory":-1}`}, {"/containers/box/update", `{"CpusetCpus":"9-1"}`}, {"/containers/box/update", `{"RestartPolicy":{"Name":"nope"}}`},
		{"/containers/box/exec", `{"Cmd":[null]}`}, {"/containers/box/exec", `{"Cmd":["true"],"Env":[null],"User":":","WorkingDir":"rel","DetachKeys":"nope"}`},
		{"/networks/back/connect", `{"Container":"box","EndpointConfig":{"IPAMConfig":{"IPv4Address":"300.1.1.1"}}}`},
		{"/networks/back/connect", `{"Container":"box","EndpointConfig":{"IPAMConfig":null,"Aliases":[null],"DriverOpts":{"x":null},"MacAddress":"zz"}}`},
		{"/networks/back/disconnect", `{"Container":"box","Force":"x"}`}, {"/networks/create", `{"Name":"n1","IPAM":null,"ConfigFrom":null,"Options":{"x":null}}`},
		{"/networks/create", `{"Name":"n2","IPAM":{"Config":[null]}}`}, {"/networks/create", `{"Name":"n3","IPAM":{"Driver":"nope","Config":[{"Subnet":"10.9.0.0/33"}]}}`},
		{"/networks/create", `{"Name":"n4","IPAM":{"Config":[{"Subnet":"10.9.0.0/31","Gateway":"10.8.0.1","AuxiliaryAddresses":{"x":"10.9.9.9"}}]}}`},
		{"/networks/create", `{"Name":"n5","Driver":"overlay","Options":{"com.docker.network.driver.mtu":"-1"},"IPAM":{"Config":[{"Subnet":"0.0.0.0/0"}]}}`},
		{"/networks/create", `{"Name":"n6","EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"fd00::/129"}]}}`}, {"/networks/create", `{"Name":"n7","Scope":"nope","ConfigOnly":true}`},
		{"/volumes/create", `{"Name":"v1","DriverOpts":{"x":null}}`}, {"/volumes/create", `{"Name":"v2","ClusterVolumeSpec":{"AccessMode":null}}`},
		{"/volumes/create", `{"Name":"v3","DriverOpts":{"type":"tmpfs","device":"tmpfs","o":"size=-1"}}`}, {"/swarm/join", `{"RemoteAddrs":[null],"JoinToken":"x"}`},
		{"/swarm/init", `{"AdvertiseAddr":"300.1.1.1"}`}, {"/swarm/init", `{"AdvertiseAddr":"nosuchlink"}`}, {"/swarm/init", `{"DataPathPort":4294967295}`}, {"/swarm/init", `{"DefaultAddrPool":["x"]}`},
		{"/swarm/init", `{"DefaultAddrPool":["10.0.0.0/8"],"SubnetSize":4294967295}`}, {"/swarm/init", `{"DefaultAddrPool":[null],"SubnetSize":24}`}, {"/cluster/init", `{"AddrPools":["fd00::/8"],"AddrPoolBits":-5}`},
	} {
		b.try("POST", c[0], "application/json", c[1])
	}
	for _, wish := range badWishes() {
		body := `{"Image":"busybox","Cmd":["true"],` + wish + `}`
		if code, _ := b.try("POST", "/containers/create?name=wish", "application/json", body); code == http.StatusCreated {
			if code, text := b.ask("POST", "/containers/wish/start", "", ""); code >= 500 {
				b.t.Errorf("start with %s: %d %s", clipped(wish), code, clipped(text))
			}
			b.try("DELETE", "/containers/wish?force=1&v=1", "", "")
		}
	}
	b.wants4xx("GET", "/containers/"+strings.Repeat("y", 1<<20)+"/json", "", "")
	for _, first := range []string{"GET\r\n\r\n", "\x00\x01\x02\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /_ping HTTP/1.1\r\n\r\n", "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"} {
		b.raw(first)
	}
	if got := h.MustMinictl("inspect", "-f", "{{.State.Status}}", "box"); got != "running\n" {
		t.Errorf("the container is %s", got)
	}
	log, err := os.ReadFile(filepath.Join(h.Dir(), "daemon.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "panicked") || strings.Contains(line, `msg="request failed"`) {
			t.Errorf("in the daemon's log: %s", clipped(line))
		}
	}
	t.Logf("%d requests", b.n)
}

// TestBadRequestsOnEveryRoute: no route of the API's table is missing from those that bad input is tried on.
func TestBadRequestsOnEveryRoute(t *testing.T) {
	tried := map[string]bool{
		"GET /": true, "GET /ui": true, "GET /_ping": true, "HEAD /_ping": true, "GET /version": true, "GET /info": true, // they read nothing
		"POST /build/prune": true, "GET /swarm": true, "GET /cluster/status": true,
		"POST /swarm/init": true, "POST /swarm/leave": true, "POST /swarm/update": true, "POST /cluster/init": true, "POST /cluster/leave": true, "POST /cluster/recover": true, "POST /cluster/rejoin": true, // no input is bad enough for them to change nothing
		"GET /cluster/backup": true, "GET /cluster/ca": true, "POST /cluster/ca": true, "GET /cluster/token": true, "POST /cluster/token": true,
		"POST /auth": true, "GET /distribution/ID/json": true, "POST /build": true, // they ask a registry, or a builder
	}
	for _, r := range apiRoutes() {
		path, _, _ := strings.Cut(r.path, "?")
		tried[r.method+" "+path] = true
	}
	files, err := filepath.Glob("../../cmd/internal/api/*.go")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`\{"(GET|POST|PUT|DELETE|HEAD)", "(/[^"]*)", s\.`)
	found := 0
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range row.FindAllStringSubmatch(string(src), -1) {
			found++
			if route := m[1] + " " + regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(m[2], "ID"); !tried[route] {
				t.Errorf("no bad input is tried on %s", route)
			}
		}
	}
	if found < 60 {
		t.Errorf("only %d routes found: are they written otherwise now?", found)
	}
}

func with(path, query string) string {
	if strings.Contains(path, "?") {
		return path + "&" + query
	}
	return path + "?" + query
}

// escape is the query's: only what would end the request line or the parameter.
func escape(s string) string {
	return strings.NewReplacer(" ", "%20", "&", "%26", "#", "%23", "+", "%2b", "%", "%25").Replace(s)
}

func clipped(s string) string { return s[:min(len(s), 260)] }

// badClient sends requests that no library would.
type badClient struct {
	t *testing.T
	h *lab.Host
	n int
}

// try wants an answer that is no fault of the daemon's: 501 says that something is not supported.
func (b *badClient) try(method, path, contentType, body string) (int, string) {
	b.t.Helper()
	code, text := b.ask(method, path, contentType, body)
	if code < 200 || code >= 500 && code != http.StatusNotImplemented && !strings.Contains(text, "not a swarm manager") {
		b.t.Errorf("%s %s [%s] %s: %d %s", method, clipped(path), clipped(contentType), clipped(body), code, clipped(text))
	}
	if code >= 400 && method != "HEAD" && code != http.StatusRequestHeaderFieldsTooLarge && !strings.HasPrefix(text, `{"message":"`) && !strings.HasPrefix(text, "400 Bad Request") {
		b.t.Errorf("%s %s: %d with %s, want docker's form", method, clipped(path), code, clipped(text))
	}
	if len(text) > 5000 && code >= 400 {
		b.t.Errorf("%s %s: %d with %d bytes of message", method, clipped(path), code, len(text))
	}
	return code, text
}

func (b *badClient) wants4xx(method, path, contentType, body string) {
	b.t.Helper()
	if code, text := b.ask(method, path, contentType, body); code < 400 || code >= 500 {
		b.t.Errorf("%s %s [%s] %s: %d %s, want a 4xx", method, clipped(path), clipped(contentType), clipped(body), code, clipped(text))
	}
}

func (b *badClient) ask(method, path, contentType, body string) (int, string) {
	b.t.Helper()
	req := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: minictl\r\nConnection: close\r\n", method, path)
	if contentType != "" {
		req += "Content-Type: " + contentType + "\r\n"
	}
	if body != "" {
		req += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	conn := b.dial()
	defer conn.Close()
	go func() { _, _ = io.WriteString(conn, req+"\r\n"+body) }() // it may be answered before it is read to its end
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		b.t.Errorf("%s %s: no answer: %v", method, clipped(path), err)
		return http.StatusOK, ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(text)
}

// raw sends what is no request at all.
func (b *badClient) raw(text string) {
	b.t.Helper()
	conn := b.dial()
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		b.t.Error(err)
	}
	answer, _ := bufio.NewReader(conn).ReadString('\n')
	if !strings.HasPrefix(answer, "HTTP/1.1 4") && !strings.HasPrefix(answer, "HTTP/1.1 505") {
		b.t.Errorf("%q: %q", text, answer)
	}
}

func (b *badClient) dial() net.Conn {
	b.t.Helper()
	b.n++
	conn, err := net.Dial("unix", b.h.SocketPath())
	if err != nil {
		b.t.Fatalf("request %d: the daemon is gone: %v", b.n, err)
	}
	return conn
}
