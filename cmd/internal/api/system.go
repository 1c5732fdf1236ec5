package api

import (
	"encoding/json"
	"net/http"
)

// systemRoutes are what clients ask before anything else, and the page for people.
func (s *server) systemRoutes() []route {
	return []route{
		{"GET", "/", s.webPage},
		{"GET", "/ui", s.webPage},
		{"GET", "/_ping", s.ping},
		{"HEAD", "/_ping", s.ping},
		{"GET", "/version", s.versionInfo},
		{"GET", "/info", s.info},
		{"GET", "/events", s.events},
	}
}

// webPage serves the page on the socket too: curl --unix-socket shows it on a host without the port.
func (s *server) webPage(w http.ResponseWriter, c *call) error {
	s.page.ServeHTTP(w, c.Request)
	return nil
}

// ping tells clients which version to speak; each invocation of docker begins with it.
func (s *server) ping(w http.ResponseWriter, c *call) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", "1") // 2 would promise BuildKit's /session
	h.Set("Swarm", s.System.SwarmState(c.Context()))
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if c.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, _ = w.Write([]byte("OK"))
	return nil
}

// versionInfo fixes the API versions: they are this package's to know.
func (s *server) versionInfo(w http.ResponseWriter, c *call) error {
	v, err := s.System.Version(c.Context())
	if err != nil {
		return err
	}
	v.APIVersion, v.MinAPIVersion = DefaultVersion, MinVersion
	return writeJSON(w, http.StatusOK, v)
}

// info is docker info; its Swarm part makes docker node ls work.
func (s *server) info(w http.ResponseWriter, c *call) error {
	info, err := s.System.Info(c.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, info)
}

// events streams until the back end's channel closes (at until) or the client goes. The back end must not block for
// ever on a channel that nobody reads any more; its context ends with the call.
func (s *server) events(w http.ResponseWriter, c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	since, until := c.text("since"), c.text("until")
	if err := checkTime("since", since); err != nil {
		return err
	}
	if err := checkTime("until", until); err != nil {
		return err
	}
	ch, err := s.System.Events(c.Context(), since, until, f)
	if err != nil {
		return err
	}
	out := &flushWriter{w: w}
	w.Header().Set("Content-Type", "application/json")
	out.begin()
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for {
		select {
		case <-c.Context().Done():
			return nil
		case m, ok := <-ch:
			if !ok || enc.Encode(withLegacyNames(m)) != nil {
				return nil
			}
		}
	}
}
