// Package rpc is the cluster's calls: JSON over HTTP on connections that the transport has authenticated. A call has a
// name, one request body and one response body; an error keeps its class (errdefs) and its text across the wire.
//
// It does not know any call: the package above registers functions with Handle and calls them with Call. HTTP brings
// what a protocol of our own would have to invent: persistent connections, several calls at a time to one host,
// cancellation when the caller goes.
package rpc
