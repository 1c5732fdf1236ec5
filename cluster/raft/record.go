package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	hraft "github.com/hashicorp/raft"
)

// castagnoli is the polynomial that processors compute in hardware.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entryHead is the length of an entry's fixed part, behind the checksum.
const entryHead = 8 + 1 + 8 + 4

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// seal puts a checksum of key and value in front of the value.
func seal(key, val []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, val)
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(val)), sum), val...)
}

// unseal checks and removes what seal added. The result is part of rec.
func unseal(key, rec []byte) ([]byte, error) {
	if len(rec) < 4 {
		return nil, fmt.Errorf("record %x is %d bytes long", key, len(rec))
	}
	val := rec[4:]
	if sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, val); sum != binary.BigEndian.Uint32(rec) {
		return nil, fmt.Errorf("the checksum of record %x is wrong", key)
	}
	return val, nil
}

// encodeEntry writes an entry as doc.go draws it, without its index, which is
// the record's key.
func encodeEntry(e *hraft.Log) []byte {
	b := make([]byte, 0, entryHead+len(e.Data)+len(e.Extensions))
	b = binary.BigEndian.AppendUint64(b, e.Term)
	b = append(b, byte(e.Type))
	var at int64 // the zero time has no nanoseconds since 1970
	if !e.AppendedAt.IsZero() {
		at = e.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Data)))
	b = append(append(b, e.Data...), e.Extensions...)
	return seal(indexKey(e.Index), b)
}

// decodeEntry reads a record into e and shares nothing with it.
func decodeEntry(key, rec []byte, e *hraft.Log) error {
	if len(key) != 8 {
		return fmt.Errorf("a key of the log is %d bytes long", len(key))
	}
	b, err := unseal(key, rec)
	if err != nil {
		return err
	}
	if len(b) < entryHead {
		return errors.New("an entry of the log is too short")
	}
	n := binary.BigEndian.Uint32(b[17:])
	if uint64(n) > uint64(len(b)-entryHead) {
		return errors.New("an entry of the log is shorter than it says")
	}
	*e = hraft.Log{
		Index: binary.BigEndian.Uint64(key),
		Term:  binary.BigEndian.Uint64(b),
		Type:  hraft.LogType(b[8]),
	}
	if at := int64(binary.BigEndian.Uint64(b[9:])); at != 0 {
		e.AppendedAt = time.Unix(0, at)
	}
	if b = b[entryHead:]; n > 0 {
		e.Data = slices.Clone(b[:n])
	}
	if len(b) > int(n) {
		e.Extensions = slices.Clone(b[n:])
	}
	return nil
}
