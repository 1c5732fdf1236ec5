package image

// Build is what a user wants built: docker build's flags, without the context itself.
type Build struct {
	// Tags are the new image's names, normalized; none leaves it dangling.
	Tags []string
	// Dockerfile is its path inside the context; empty is Dockerfile.
	Dockerfile string
	// Target is the stage to stop at; empty is the last.
	Target string
	// Remote is a git repository or an archive's URL that the builder fetches as the context; empty: the context is sent.
	Remote string
	// Args are the build arguments. They were given a value all.
	Args map[string]string
	// Labels are put on the image.
	Labels map[string]string
	// NoCache runs every step again.
	NoCache bool
	// Pull asks registries for images of FROM that are on this host already.
	Pull bool
	// Platform is os/arch[/variant]; empty is the builder's own.
	Platform string
	// Network is what RUN steps reach: empty for the builder's own, host or none.
	Network string
	// ExtraHosts are name:address, for the /etc/hosts of RUN steps.
	ExtraHosts []string
	// ShmSize is that of /dev/shm in RUN steps, in bytes; 0 is the builder's default.
	ShmSize int64
	// Ulimits are name=soft:hard, for RUN steps.
	Ulimits []string
	// CacheFrom are images whose layers may stand for steps.
	CacheFrom []string
	// Auth holds the credentials of registries by their address.
	Auth map[string]Auth
}
