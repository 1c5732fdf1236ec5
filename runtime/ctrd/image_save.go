package ctrd

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/distribution/reference"
	rules "github.com/minictl/minictl/runtime/image"
)

// Save writes images to w as one tar that is both an OCI layout and what docker save has always written. A reference
// without a tag means every tag of its repository; an ID saves the image without a name. Nothing is written unless every
// image is there.
func (r *Runtime) Save(ctx context.Context, refs []string, w io.Writer) error {
	ctx, done, err := r.client.WithLease(r.ctx(ctx))
	if err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	defer done(context.WithoutCancel(ctx)) // until then nothing is collected, also when somebody removes the image
	recs, byID, err := r.records(ctx)
	if err != nil {
		return err
	}
	var opts []archive.ExportOpt
	for _, ref := range refs {
		more, err := saveOf(recs, listed(byID), ref)
		if err != nil {
			return err
		}
		opts = append(opts, more...)
	}
	if err := archive.Export(ctx, r.client.ContentStore(), w, opts...); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

// saveOf finds what one reference of the command line saves.
func saveOf(recs []record, all []rules.Image, ref string) ([]archive.ExportOpt, error) {
	if names := rules.Tags(all, ref); len(names) > 0 {
		var out []archive.ExportOpt
		for _, rec := range recs {
			if _, ok := names[rules.Familiar(rec.Name)]; ok {
				out = append(out, archive.WithManifest(bare(rec.Target), rec.Name))
			}
		}
		return out, nil
	}
	img, byID, err := rules.Find(all, ref)
	if err != nil {
		return nil, err
	}
	for _, rec := range recs {
		named, err := rules.ParseName(ref)
		switch {
		case rec.id != img.ID:
		case byID || err != nil || strings.Contains(ref, "@"):
			return []archive.ExportOpt{archive.WithManifest(bare(rec.Target))}, nil
		case rec.Name == reference.TagNameOnly(named).String():
			return []archive.ExportOpt{archive.WithManifest(bare(rec.Target), rec.Name)}, nil
		}
	}
	return nil, rules.NotFound(ref)
}
