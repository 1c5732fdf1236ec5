// Package version names this release of minictl.
package version

// Version is what `minictl version` and the API say; packages have it too.
const Version = "0.1.0"
