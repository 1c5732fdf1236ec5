package ctrd

// Task is the running (or stopped) process of a container.
type Task struct {
	id string
	rt *Runtime
}
