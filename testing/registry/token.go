package registry

import (
	"encoding/json"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// token is what the gate hands out and lets in.
const token = "lab-bearer-token"

// TokenGate stands before an open registry the way public registries do: it demands a bearer token, which its own
// /token gives to those who know user and password. self is the gate's own address, host:port.
func (r *Registry) TokenGate(self func() string, user, password string) http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: r.Addr})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			giveToken(w, req, user, password)
			return
		}
		if req.Header.Get("Authorization") != "Bearer "+token {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+self()+`/token",service="lab"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		req.Header.Del("Authorization")
		proxy.ServeHTTP(w, req)
	})
}

// giveToken answers GET with basic auth and POST with a form (OAuth 2), the two ways of the token specification.
func giveToken(w http.ResponseWriter, req *http.Request, user, password string) {
	u, p, ok := req.BasicAuth()
	if req.Method == http.MethodPost {
		u, p, ok = req.FormValue("username"), req.FormValue("password"), true
	}
	if !ok || u != user || p != password {
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`, http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"token": token, "access_token": token})
}
