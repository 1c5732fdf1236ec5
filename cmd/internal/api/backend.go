package api

import (
	"context"
	"io"
	"net/netip"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"github.com/minictl/minictl/cmd/internal/filters"
)

// Filters is the Engine API's filters parameter.
type Filters = filters.Set

// ContainerBackend is what the container routes need. ref is a name, an ID or an unambiguous prefix of one.
type ContainerBackend interface {
	ContainerCreate(ctx context.Context, name string, o CreateOptions, req container.CreateRequest) (container.CreateResponse, error)
	ContainerList(ctx context.Context, opts ListOptions) ([]container.Summary, error)
	ContainerInspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error)
	// ContainerStart returns errdefs.ErrNotModified's class (see NotModified) when it runs already.
	ContainerStart(ctx context.Context, ref string) ([]string, error)
	ContainerStop(ctx context.Context, ref string, signal string, timeout *int) error
	ContainerRestart(ctx context.Context, ref string, signal string, timeout *int) error
	ContainerKill(ctx context.Context, ref string, signal string) error
	ContainerRemove(ctx context.Context, ref string, force, volumes bool) error
	ContainerRename(ctx context.Context, ref, name string) error
	// ContainerWait registers the wait before it returns; the channel gets exactly one answer.
	ContainerWait(ctx context.Context, ref string, condition container.WaitCondition) (<-chan container.WaitResponse, error)
	ContainerPause(ctx context.Context, ref string) error
	ContainerUnpause(ctx context.Context, ref string) error
	// ContainerTop lists processes; args are ps's.
	ContainerTop(ctx context.Context, ref, args string) (container.TopResponse, error)
	// ContainerStats calls send with one sample, or with one a second until ctx ends or send fails.
	ContainerStats(ctx context.Context, ref string, stream, oneShot bool, send func(container.StatsResponse) error) error
	ContainerUpdate(ctx context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error)
	ContainerResize(ctx context.Context, ref string, height, width uint32) error
	ContainerLogs(ctx context.Context, ref string, opts LogsOptions, w io.Writer) error
	// ContainerTTY tells whether its output is one raw stream.
	ContainerTTY(ctx context.Context, ref string) (bool, error)
	// ContainerAttach returns once the stream is registered, also for a container that does not run yet: output from
	// the very first byte goes to it. Frames are already multiplexed as the Engine API wants them.
	ContainerAttach(ctx context.Context, ref string, opts AttachOptions) (Stream, error)
}

// ListOptions are GET /containers/json's.
type ListOptions struct {
	All     bool
	Limit   int
	Size    bool
	Filters Filters
}

// LogsOptions are GET /containers/{id}/logs'. Times are the API's own text (Unix seconds with nanoseconds, or RFC 3339).
type LogsOptions struct {
	Stdout, Stderr, Follow, Timestamps, Details bool
	Since, Until, Tail                          string
}

// AttachOptions are POST /containers/{id}/attach's.
type AttachOptions struct {
	Stream, Stdin, Stdout, Stderr, Logs bool
	DetachKeys                          string
}

// Stream is a container's or an exec's standard streams: writes go to stdin, reads give the output as the Engine API
// frames it (raw with a TTY, multiplexed without). CloseWrite ends stdin alone.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// ExecBackend is what the exec routes need.
type ExecBackend interface {
	ExecCreate(ctx context.Context, ref string, req container.ExecCreateRequest) (string, error)
	// ExecStart starts it. With req.Detach the stream is nil and the call returns when the process runs.
	ExecStart(ctx context.Context, id string, req container.ExecStartRequest) (Stream, error)
	ExecInspect(ctx context.Context, id string) (container.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, height, width uint32) error
}

// NetworkInspect is docker's answer, and what docker has no word for.
type NetworkInspect struct {
	network.Inspect
	// Reserves are the addresses that each host, by name, may give while nobody decides.
	Reserves map[string][]netip.Addr `json:"Reserves,omitempty"`
	// MTU is what the network's endpoints carry now, in bytes; 0: unknown.
	MTU int `json:"MTU,omitempty"`
	// VNI is an overlay's VXLAN identifier (RFC 7348).
	VNI uint32 `json:"VNI,omitempty"`
}

// NetworkBackend is what the network routes need.
type NetworkBackend interface {
	NetworkList(ctx context.Context, f Filters) ([]network.Summary, error)
	NetworkInspect(ctx context.Context, ref, scope string, verbose bool) (NetworkInspect, error)
	NetworkCreate(ctx context.Context, req network.CreateRequest) (network.CreateResponse, error)
	NetworkRemove(ctx context.Context, ref string) error
	NetworkConnect(ctx context.Context, ref string, req network.ConnectRequest) error
	NetworkDisconnect(ctx context.Context, ref string, req network.DisconnectRequest) error
	NetworkPrune(ctx context.Context, f Filters) (network.PruneReport, error)
}

// VolumeBackend is what the volume routes need. Volumes are found by their whole name only.
type VolumeBackend interface {
	VolumeList(ctx context.Context, f Filters) ([]volume.Volume, error)
	VolumeInspect(ctx context.Context, name string) (volume.Volume, error)
	// VolumeCreate gives the volume of that name if there is one.
	VolumeCreate(ctx context.Context, req volume.CreateRequest) (volume.Volume, error)
	VolumeRemove(ctx context.Context, name string, force bool) error
	VolumePrune(ctx context.Context, f Filters) (volume.PruneReport, error)
}

// ImageBackend is what the image routes need.
type ImageBackend interface {
	ImageList(ctx context.Context, all bool, f Filters) ([]image.Summary, error)
	// ImageShares are the bytes of each image, by ID, that others have as well.
	ImageShares(ctx context.Context) (map[string]int64, error)
	ImageInspect(ctx context.Context, ref string) (image.InspectResponse, error)
	// ImagePull, ImageLoad and ImageImport write progress as they go; the API turns it into NDJSON.
	ImagePull(ctx context.Context, ref, platform, registryAuth string, p Progress) error
	ImageLoad(ctx context.Context, r io.Reader, platform string, p Progress) error
	// ImageFetch opens a URL for ImageImport.
	ImageFetch(ctx context.Context, url string, p Progress) (io.ReadCloser, error)
	ImageImport(ctx context.Context, r io.Reader, ref string, changes []string, message, platform string, p Progress) error
	ImageTag(ctx context.Context, ref, target string) error
	ImageRemove(ctx context.Context, ref string, force, prune bool) ([]image.DeleteResponse, error)
}

// Progress takes one line of a long operation's progress.
type Progress interface {
	// Status is a line such as ("Pulling fs layer", "4abcf2066143", 0, 0); total 0 means unknown.
	Status(status, id string, current, total int64)
	// Stream is plain text, such as "Loaded image: busybox:latest\n".
	Stream(text string)
}

// SystemBackend is what the system routes need.
type SystemBackend interface {
	Info(ctx context.Context) (system.Info, error)
	Version(ctx context.Context) (system.VersionResponse, error)
	// SwarmState is the /_ping header's word: inactive, active/worker or active/manager.
	SwarmState(ctx context.Context) string
	// Events gives past events since (zero: none) and then live ones until ctx ends.
	Events(ctx context.Context, since, until string, f Filters) (<-chan events.Message, error)
}

// ClusterBackend is what /cluster, /swarm and /nodes need.
type ClusterBackend interface {
	ClusterInit(ctx context.Context, req ClusterInitRequest) (ClusterInitResponse, error)
	ClusterJoin(ctx context.Context, req ClusterJoinRequest) (ClusterJoinResponse, error)
	ClusterLeave(ctx context.Context, force bool) error
	ClusterToken(ctx context.Context, rotate bool) (ClusterToken, error)
	ClusterStatus(ctx context.Context) (ClusterStatus, error)
	// ClusterRecover makes this host decide, after those that did are gone; dryRun only says what that would mean.
	ClusterRecover(ctx context.Context, dryRun bool) (ClusterRecoverResponse, error)
	// ClusterRejoin gives up this side of a cluster that was taken over on both.
	ClusterRejoin(ctx context.Context, remote string) error
	// ClusterFind calls a member, by name or ID, at the address that it has now.
	ClusterFind(ctx context.Context, node, addr string) error
	// ClusterBackup writes all that the cluster has decided, its private keys included; nothing is written if it fails.
	ClusterBackup(ctx context.Context, w io.Writer) error
	// ClusterRestore makes this host, which must be alone, the one that wrote the backup.
	ClusterRestore(ctx context.Context, req ClusterRestoreRequest, backup io.Reader) (ClusterRestoreResponse, error)
	// ClusterRotateCA begins to replace the certificate authority; finish ends it without waiting for hosts that do not follow.
	ClusterRotateCA(ctx context.Context, finish bool) error
	ClusterRotation(ctx context.Context) (ClusterRotation, error)
	NodeList(ctx context.Context, f Filters) ([]swarm.Node, error)
	NodeInspect(ctx context.Context, ref string) (swarm.Node, error)
	NodeRemove(ctx context.Context, ref string, force bool) error
	// NodeUpdate replaces a node's spec if version is still that of the one there is.
	NodeUpdate(ctx context.Context, ref string, version uint64, spec swarm.NodeSpec) error
}
