//go:build !failpoint

// Package failpoint lets tests make a named step fail. In an ordinary build it is nothing at all.
package failpoint

// Hit is a step a test may break. Without the build tag it always succeeds.
func Hit(string) error { return nil }
