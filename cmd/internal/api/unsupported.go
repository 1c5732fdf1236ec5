package api

import (
	"net/http"
)

// unsupported lists docker's routes that have no back end, each with a sentence: what it is, and what to use instead.
func unsupported() []route {
	rows := []struct{ method, pattern, text string }{
		{"GET", "/containers/{id}/attach/ws", "attaching by websocket is not supported; use POST /containers/{id}/attach instead"},
		{anyMethod, "/containers/{id}/checkpoints", noCheckpoint},
		{anyMethod, "/containers/{id}/checkpoints/{name...}", noCheckpoint},

		{"POST", "/build/cancel", "cancelling a build by its ID is not supported; end the client that started it"},
		{"POST", "/session", noSession},
		{"POST", "/grpc", noSession},
		{"GET", "/images/search", "searching a registry is not supported; use the registry's web page instead"},
		{"GET", "/images/{name...}/attestations", "image attestations are not supported"},

		{"PUT", "/volumes/{name}", "changing a volume is not supported; only cluster volumes can be changed, and there are none"},

		{"GET", "/swarm/unlockkey", noLock},
		{"POST", "/swarm/unlock", noLock},
		{anyMethod, "/services", noService},
		{anyMethod, "/services/{name...}", noService},
		{anyMethod, "/tasks/{name...}", noService},
		{anyMethod, "/secrets", noSecret},
		{anyMethod, "/secrets/{name...}", noSecret},
		{anyMethod, "/configs", noSecret},
		{anyMethod, "/configs/{name...}", noSecret},
		{anyMethod, "/plugins", noPlugin},
		{anyMethod, "/plugins/{name...}", noPlugin},
	}
	table := make([]route, 0, len(rows))
	for _, row := range rows {
		table = append(table, route{row.method, row.pattern, func(http.ResponseWriter, *call) error {
			return notImplemented("%s", row.text)
		}})
	}
	return table
}

const (
	noCheckpoint = "checkpoints are not supported"
	noSession    = "the builder's second protocol is not served here; build with \"minictl build\" or \"DOCKER_BUILDKIT=0 docker build\", or with \"docker buildx build -o type=docker . | minictl load\""
	noLock       = "locking the cluster is not supported"
	noService    = "services are not supported; use \"docker run\" on each host instead"
	noSecret     = "secrets and configs are not supported; use a bind mount instead"
	noPlugin     = "plugins are not supported"
)

// table is every route. Exact patterns come before those with wildcards: the first that fits serves.
func (s *server) table() []route {
	var t []route
	t = append(t, s.systemRoutes()...)
	t = append(t, s.diskRoutes()...)
	t = append(t, s.containerRoutes()...)
	t = append(t, s.fileRoutes()...)
	t = append(t, s.execRoutes()...)
	t = append(t, s.networkRoutes()...)
	t = append(t, s.volumeRoutes()...)
	t = append(t, s.registryRoutes()...)
	t = append(t, s.imageRoutes()...)
	t = append(t, s.buildRoutes()...)
	t = append(t, s.clusterRoutes()...)
	t = append(t, s.swarmRoutes()...)
	return append(t, unsupported()...)
}
