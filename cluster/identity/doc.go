// Package identity makes and checks who is who in a cluster: node keys, the cluster's certificate authority, node
// certificates and join tokens.
//
// A node's identity is its key: the node ID is a hash of the public key, so nobody can claim another's ID, and a host
// whose address changes stays the same node. Files (mode 0600, in one folder per host):
//
//	node.key   the host's private key, PEM, made at first start
//	node.crt   its certificate, signed by the cluster's authority; absent while the host is alone
//	ca.crt     the cluster's authority
//
// The authority's private key is not among them: it lives in the cluster's replicated store, so that every member can
// admit a new host.
package identity
