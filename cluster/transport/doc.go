// Package transport carries everything that the hosts of a cluster say to each other through one port.
//
// TCP carries TLS 1.3. The protocol name (ALPN, RFC 7301) that a caller offers picks who gets the connection: gossip
// streams, raft, RPC, or joining. All but joining need a certificate of the cluster's authority on both sides; a caller
// verifies that it reached the node it meant, by node ID and not by address, and the called one that the caller is a
// member now. After the handshake both state their fence (cluster and epoch): a host from before an operator's takeover,
// or of a cloned cluster, is told so in a sentence and can say nothing more, except, over a protocol of its own, that it
// wants to join again. UDP carries gossip packets, which the
// gossip layer encrypts.
//
// The listener binds the advertised address only.
package transport
