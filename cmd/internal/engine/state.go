package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/minictl/minictl/cluster/boltfile"
	"github.com/minictl/minictl/runtime/container"
)

// stateVersion is the schema's; an older one is brought up to it (migrate), a newer one is refused.
//
//	meta
//	├── version     "5"
//	└── identity    this engine's ID, 64 hexadecimal digits
//	containers
//	└── <id>        JSON record{spec, status}; endpoints with IPv6 addresses since version 4
//	networks
//	└── <id>        JSON Network, local networks only; IPv6 and several subnets since version 4
//	volumes
//	└── <name>      JSON volume.Volume, since version 2
//	reserves
//	└── <id>        JSON spareNet, by a global network's ID, since version 3
//	debts
//	└── <id>        JSON debt: what a plugin has still to be told, since version 5
const stateVersion = "5"

// state is this host's own memory: containers, local networks, volumes and the addresses it may give without asking. What the cluster decides lives in the store.
type state struct{ db *boltfile.DB }

type record struct {
	Spec   container.Spec   `json:"spec"`
	Status container.Status `json:"status"`
}

func openState(path string) (*state, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := notLost(path); err != nil {
		return nil, err
	}
	var db *bolt.DB
	broken := func(cause error) error { return damaged(path, cause) }
	err := boltfile.Unbroken(broken, func() (err error) {
		db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
		if err != nil && !errors.Is(err, bolterrors.ErrTimeout) && !errors.As(err, new(*os.PathError)) {
			err = broken(err)
		}
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: another daemon holds it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := boltfile.Unbroken(broken, func() error { return prepare(db) }); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), boltfile.Unbroken(broken, db.Close))
	}
	s := &state{boltfile.New(db)}
	_ = boltfile.Unbroken(broken, s.db.Room) // whoever adds hears of it
	return s, nil
}

// prepare makes an empty file one of this schema, brings an older one up to it, and reads all there is: what is damaged
// shall show now rather than in the middle of something.
func prepare(db *bolt.DB) error {
	err := db.Update(func(tx *bolt.Tx) error {
		for _, b := range []string{"meta", "containers", "networks", "volumes", "reserves", "debts"} {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		meta := tx.Bucket([]byte("meta"))
		switch v := string(meta.Get([]byte("version"))); v {
		case "":
			if err := meta.Put([]byte("identity"), []byte(newID())); err != nil {
				return err
			}
			return meta.Put([]byte("version"), []byte(stateVersion))
		case stateVersion:
			return nil
		default:
			return migrate(tx, v)
		}
	})
	if err != nil {
		return err
	}
	return db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				if len(v) > 0 && v[0] == '{' && !json.Valid(v) {
					return damaged(db.Path(), fmt.Errorf("the record of %q is no JSON", k))
				}
				return nil
			})
		})
	})
}

// damaged says what the user can do about a file that cannot be trusted.
func damaged(path string, cause error) error {
	dir := filepath.Dir(path)
	return fmt.Errorf("the file is damaged (%w). It holds this host's containers, local networks and volumes' names: put it back from a backup. "+
		"Or start without: mkdir %[2]s/damaged && mv %[3]s %[2]s/containers %[2]s/damaged; this host's containers are lost then, while images, "+
		"the cluster's networks and volumes' content below %[2]s/volumes stay: %[4]w", cause, dir, path, errdefs.ErrDataLoss)
}

// notLost refuses to begin anew where there have been containers.
func notLost(path string) error {
	info, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && info.Size() > 0 {
		return nil
	}
	kept, _ := os.ReadDir(filepath.Join(filepath.Dir(path), "containers"))
	if len(kept) == 0 {
		return nil // a first start, perhaps one that was cut short
	}
	what := "it is empty"
	if err != nil {
		what = "it is missing"
	}
	return fmt.Errorf("open %s: %w", path, damaged(path, fmt.Errorf("%s, and there have been %d containers", what, len(kept))))
}

// Close releases the file.
func (s *state) Close() error { return s.db.Close() }

func (s *state) identity() (id string, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		id = string(tx.Bucket([]byte("meta")).Get([]byte("identity")))
		return nil
	})
	return id, err
}

// add keeps what is new. It is refused while the disk is full; what follows from what is there is not.
func (s *state) add(bucket, id string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		in := tx.Bucket([]byte(bucket))
		if in.Get([]byte(id)) == nil {
			if err := s.db.Reserve(tx, len(b)); err != nil {
				return err
			}
		}
		return in.Put([]byte(id), b)
	})
}

func (s *state) put(bucket, id string, v any) error {
	return s.write(bucket, id, func() any { return v })
}

// write puts what now gives, which is asked when nobody else writes.
func (s *state) write(bucket, id string, now func() any) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b, err := json.Marshal(now())
		if err != nil {
			return err
		}
		return tx.Bucket([]byte(bucket)).Put([]byte(id), b)
	})
}

func (s *state) delete(bucket, id string) error {
	return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Delete([]byte(id)) })
}

// eachKey calls fn with every key and value of a bucket.
func (s *state) eachKey(bucket string, fn func(id string, value []byte) error) error {
	return s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
			if err := fn(string(k), v); err != nil {
				return fmt.Errorf("read %s %s: %w", bucket, k, err)
			}
			return nil
		})
	})
}

// each decodes every value of a bucket; one that can't be read is an error that names it.
func each[T any](s *state, bucket string, fn func(T)) error {
	return s.eachKey(bucket, func(_ string, value []byte) error {
		var t T
		if err := json.Unmarshal(value, &t); err != nil {
			return err
		}
		fn(t)
		return nil
	})
}
