package ctrd

// cgroups remembers which parents of containers' cgroups are ours to remove.
type cgroups struct{}
