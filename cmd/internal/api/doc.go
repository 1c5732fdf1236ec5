// Package api serves the Docker Engine API and our own /cluster routes on the daemon's socket.
package api
