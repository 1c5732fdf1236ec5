package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/minictl/minictl/runtime/container"
)

// stateVersion is the schema's; an older one is brought up to it (migrate), a newer one is refused.
//
//	meta
//	├── version     "4"
//	└── identity    this engine's ID, 64 hexadecimal digits
//	containers
//	└── <id>        JSON record{spec, status}; endpoints with IPv6 addresses since version 4
//	networks
//	└── <id>        JSON Network, local networks only; IPv6 and several subnets since version 4
//	volumes
//	└── <name>      JSON volume.Volume, since version 2
//	reserves
//	└── <id>        JSON spareNet, by a global network's ID, since version 3
const stateVersion = "4"

// state is this host's own memory: containers, local networks, volumes and the addresses it may give without asking. What the cluster decides lives in the store.
type state struct{ db *bolt.DB }

type record struct {
	Spec   container.Spec   `json:"spec"`
	Status container.Status `json:"status"`
}

func openState(path string) (*state, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: another daemon holds it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range []string{"meta", "containers", "networks", "volumes", "reserves"} {
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
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return &state{db}, nil
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

func (s *state) put(bucket, id string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(id), b) })
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
