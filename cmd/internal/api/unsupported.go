package api

import (
	"net/http"
)

// unsupported lists docker's routes that have no back end, each with a sentence: what it is, and what to use instead.
func unsupported() []route {
	rows := []struct{ method, pattern, text string }{
		{"GET", "/system/df", "disk usage is not supported; use \"docker images\" and \"docker ps --size\" instead"},
		{"GET", "/containers/{id}/archive", noCopy},
		{"HEAD", "/containers/{id}/archive", noCopy},
		{"PUT", "/containers/{id}/archive", noCopy},
		{"POST", "/containers/prune", "pruning containers is not supported; use \"docker rm\" instead"},
		{"GET", "/containers/{id}/changes", "listing a container's file changes is not supported"},
		{"GET", "/containers/{id}/export", "exporting is not supported; use \"docker exec CONTAINER tar -c /\" instead"},
		{"GET", "/containers/{id}/attach/ws", "attaching by websocket is not supported; use POST /containers/{id}/attach instead"},
		{anyMethod, "/containers/{id}/checkpoints", noCheckpoint},
		{anyMethod, "/containers/{id}/checkpoints/{name...}", noCheckpoint},
		{"POST", "/commit", "committing a container is not supported; build the image elsewhere and use \"docker load\" instead"},

		{"POST", "/build", noBuild},
		{"POST", "/build/prune", noBuild},
		{"POST", "/build/cancel", noBuild},
		{"POST", "/session", noBuild},
		{"POST", "/grpc", noBuild},
		{"POST", "/images/prune", "pruning images is not supported; use \"docker rmi\" instead"},
		{"GET", "/images/get", noSave},
		{"GET", "/images/search", "searching a registry is not supported; use the registry's web page instead"},
		{"GET", "/images/{name...}/get", noSave},
		{"GET", "/images/{name...}/history", "image history is not supported; use \"docker image inspect\" instead"},
		{"GET", "/images/{name...}/attestations", "image attestations are not supported"},
		{"POST", "/images/{name...}/push", "pushing is not supported; push from where the image was built instead"},
		{"POST", "/auth", "checking a registry login is not supported; clients send their credentials with each pull"},
		{"GET", "/distribution/{name...}/json", "asking a registry for a digest is not supported; use \"docker pull\" instead"},

		{"GET", "/volumes", noVolume},
		{anyMethod, "/volumes/{name...}", noVolume},

		{"GET", "/swarm/unlockkey", noLock},
		{"POST", "/swarm/unlock", noLock},
		{"POST", "/nodes/{id}/update", "changing a node is not supported; every node is a manager and active"},
		{"DELETE", "/nodes/{id}", "removing a node from here is not supported; use \"minictl cluster leave\" on it instead"},
		{anyMethod, "/services", noService},
		{anyMethod, "/services/{name...}", noService},
		{anyMethod, "/tasks", noService},
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
	noCopy       = "copying files is not supported; use \"docker exec CONTAINER tar\" or a bind mount instead"
	noCheckpoint = "checkpoints are not supported"
	noBuild      = "building is not supported; build the image elsewhere and use \"docker load\" or \"docker pull\" instead"
	noSave       = "saving images is not supported; use \"docker pull\" on the other host instead"
	noVolume     = "volumes are not supported yet; use a bind mount (-v /host/folder:/folder) instead"
	noLock       = "locking the cluster is not supported"
	noService    = "services are not supported; use \"docker run\" on each host instead"
	noSecret     = "secrets and configs are not supported; use a bind mount instead"
	noPlugin     = "plugins are not supported"
)

// table is every route. Exact patterns come before those with wildcards: the first that fits serves.
func (s *server) table() []route {
	var t []route
	t = append(t, s.systemRoutes()...)
	t = append(t, s.containerRoutes()...)
	t = append(t, s.execRoutes()...)
	t = append(t, s.networkRoutes()...)
	t = append(t, s.imageRoutes()...)
	t = append(t, s.clusterRoutes()...)
	t = append(t, s.swarmRoutes()...)
	return append(t, unsupported()...)
}
