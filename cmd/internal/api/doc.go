// Package api serves the Docker Engine API and our own /cluster routes on the daemon's socket.
//
// The table of routes is put together in table; a file per noun holds its rows and their handlers. A handler reads the
// call, asks one back end, and either answers or returns an error, which httpStatus turns into a status.
//
// # Contexts
//
// A back end gets one of three contexts, and which one decides what a vanished client does:
//
//   - questions, wait, logs, events and pulls: the request's own, which ends when the client goes;
//   - changes (create, start, stop, remove, connect, join …): one that outlives the client, so that nothing is left half
//     done, and ends shutdownGrace after the server was told to stop;
//   - attach and exec: one that outlives the client too, since net/http takes a half-close for a departure; pump finds
//     out by itself whether the client is gone, and closes the Stream.
//
// # Streams
//
// A Stream's Read, Write and CloseWrite must return once Close was called, by any goroutine and at any time, also when
// the process has not been started. An exec's Read must say EOF only when ExecInspect knows the exit code, unless the
// Stream was closed: clients ask the moment the stream ends.
package api
