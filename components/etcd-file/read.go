package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

const (
	// A file without a digest ends with a sector: client/v3, snapshot/v3_snapshot.go, hasChecksum.
	sectorBytes = 512
	// Whoever has the file open for writing is an etcd that runs.
	lockTimeout = time.Second
	// Of a damaged file this many complaints are told.
	complaintsLimit = 3
)

// read prints the file at path as a stream.
func read(path string, out io.Writer, wantsDigest bool) error {
	if err := checkDigest(path, wantsDigest); err != nil {
		return err
	}
	return view(path, func(tx *bolt.Tx) error { return dump(tx, newSink(out), path) })
}

// view runs act on a file that is whole.
func view(path string, act func(*bolt.Tx) error) error {
	db, err := bolt.Open(path, privateMode, &bolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if errors.Is(err, bolt.ErrTimeout) {
		return fmt.Errorf("%s is in use: stop its etcd, or read a snapshot of it", path)
	}
	if err != nil {
		return fmt.Errorf("%s is no database of etcd: %w", path, err)
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		if err := checkSize(tx, path); err != nil {
			return err
		}
		if err := check(tx); err != nil {
			return fmt.Errorf("%s is damaged: %w", path, err)
		}
		return act(tx)
	})
}

func checkDigest(path string, wantsDigest bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file", path)
	}
	if info.Size()%sectorBytes != sha256.Size {
		if wantsDigest {
			return fmt.Errorf("%s has no digest at its end, as a snapshot of etcd has", path)
		}
		return nil
	}
	digest, stored := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.CopyN(digest, file, info.Size()-sha256.Size); err != nil {
		return err
	}
	if _, err := io.ReadFull(file, stored); err != nil {
		return err
	}
	if !bytes.Equal(stored, digest.Sum(nil)) {
		return fmt.Errorf("%s is damaged: its digest is not that of its content", path)
	}
	return nil
}

// checkSize refuses a file whose end is missing: bbolt would read beyond it, and crash.
func checkSize(tx *bolt.Tx, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() < tx.Size() {
		return fmt.Errorf("%s is damaged: it has %d bytes of %d", path, info.Size(), tx.Size())
	}
	return nil
}

func check(tx *bolt.Tx) error {
	var found []error
	for complaint := range tx.Check() {
		if len(found) < complaintsLimit {
			found = append(found, complaint)
		}
	}
	return errors.Join(found...)
}

func dump(tx *bolt.Tx, out *sink, path string) error {
	keys, meta := tx.Bucket(keyBucket), tx.Bucket(metaBucket)
	if keys == nil || meta == nil {
		return fmt.Errorf("%s is no database of etcd: it has no bucket %q or %q", path, keyBucket, metaBucket)
	}
	h, err := readHead(tx, meta)
	if err != nil {
		return err
	}
	if err := out.head(h); err != nil {
		return err
	}
	versions, leases := uint64(0), uint64(0)
	err = keys.ForEach(func(key, value []byte) error {
		v, err := readVersion(key, value)
		if err != nil {
			return err
		}
		// What `etcdutl snapshot restore --bump-revision` puts there is nobody's version.
		if len(v.key) == 0 && v.revision <= h.compacted {
			return nil
		}
		versions++
		return out.version(v)
	})
	if err != nil {
		return err
	}
	if bucket := tx.Bucket(leaseBucket); bucket != nil {
		err := bucket.ForEach(func(_, value []byte) error {
			l, err := parseLeaseMessage(value)
			if err != nil {
				return err
			}
			leases++
			return out.lease(l)
		})
		if err != nil {
			return err
		}
	}
	return out.end(versions, leases)
}

func readHead(tx *bolt.Tx, meta *bolt.Bucket) (head, error) {
	h := head{compacted: neverCompacted, index: number(meta.Get(consistentIndexKey)), term: number(meta.Get(termKey))}
	for _, name := range [][]byte{scheduledCompactKey, finishedCompactKey} {
		value := meta.Get(name)
		if value == nil {
			continue
		}
		revision, _, _, err := parseRevisionKey(value)
		if err != nil {
			return h, fmt.Errorf("%s: %w", name, err)
		}
		h.compacted = max(h.compacted, revision)
	}
	if auth := tx.Bucket(authBucket); auth != nil {
		h.authEnabled = bytes.Equal(auth.Get(authEnabledKey), []byte{1})
	}
	return h, nil
}

func number(bytes []byte) uint64 {
	if len(bytes) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(bytes)
}

func readVersion(key, value []byte) (version, error) {
	revision, sub, isTombstone, err := parseRevisionKey(key)
	if err != nil {
		return version{}, err
	}
	var message mvccpb.KeyValue
	if err := proto.Unmarshal(value, &message); err != nil {
		return version{}, fmt.Errorf("revision %d.%d: %w", revision, sub, err)
	}
	v := version{revision: revision, sub: sub, key: message.Key}
	if isTombstone {
		return v, nil
	}
	if message.ModRevision != revision && len(message.Key) > 0 {
		return v, fmt.Errorf("revision %d.%d holds the version of revision %d", revision, sub, message.ModRevision)
	}
	v.create, v.version, v.lease, v.value = message.CreateRevision, message.Version, message.Lease, message.Value
	return v, nil
}
