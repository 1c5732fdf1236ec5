// Package nl is the project's one door to rtnetlink and to network namespaces.
//
// A Conn is a netlink socket bound to one namespace: a socket keeps the namespace it was opened in, so that reading
// and writing another namespace's links needs no setns for each call. What cannot be done through a socket (sysctls,
// raw frames) goes through Enter, which keeps threads clean: a thread that could not go home dies with its goroutine
// and is never given back to the scheduler.
//
// Every write states what shall be there (replace, never add) and every dump is repeated while the kernel says that
// it was interrupted (NLM_F_DUMP_INTR), because half a dump looks like missing rows.
package nl
