package main

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

const (
	privateMode = 0o600
	// A transaction of bbolt keeps what it changes in memory.
	transactionBytes = 16 << 20
	// Rows come in the order of their keys, so pages can be full; etcd leaves a tenth free as well.
	fillPercent = 0.9
)

// write makes the file at path, which must not exist, from the stream. Without an error it is whole and on disk.
func write(path string, in io.Reader) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, privateMode)
	if err != nil {
		return err
	}
	file.Close()
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	if err := writeDatabase(path, newSource(in)); err != nil {
		return err
	}
	return appendDigest(path)
}

func writeDatabase(path string, in *source) (err error) {
	// As etcd opens its own (storage/backend/config_linux.go); one sync at the end is enough for a new file.
	db, err := bolt.Open(path, privateMode, &bolt.Options{
		NoFreelistSync: true,
		FreelistType:   bolt.FreelistMapType,
		NoSync:         true,
		NoGrowSync:     true,
		PageSize:       4096,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.AllocSize = 1 << 20
	w := &writer{db: db}
	defer w.rollback()
	if err := w.consume(in); err != nil {
		return err
	}
	return db.Sync()
}

type writer struct {
	db       *bolt.DB
	tx       *bolt.Tx
	keys     *bolt.Bucket
	leases   *bolt.Bucket
	pending  int
	last     version
	versions uint64
	count    uint64
}

func (w *writer) consume(in *source) error {
	kind, body, err := in.next()
	if err != nil {
		return err
	}
	if kind != kindHead {
		return fmt.Errorf("the stream starts with a record %q", kind)
	}
	h, err := parseHead(body)
	if err != nil {
		return err
	}
	if err := w.start(h); err != nil {
		return err
	}
	for {
		kind, body, err := in.next()
		if err != nil {
			return err
		}
		switch kind {
		case kindVersion:
			err = w.version(body)
		case kindLease:
			err = w.lease(body)
		case kindEnd:
			if err := w.end(body); err != nil {
				return err
			}
			return in.ended()
		default:
			err = fmt.Errorf("the stream has a record %q", kind)
		}
		if err != nil {
			return err
		}
	}
}

func (w *writer) start(h head) error {
	if err := w.begin(); err != nil {
		return err
	}
	for _, name := range emptyBuckets {
		if _, err := w.tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	meta := w.tx.Bucket(metaBucket)
	values := map[string][]byte{
		string(consistentIndexKey): binary.BigEndian.AppendUint64(nil, h.index),
		string(termKey):            binary.BigEndian.AppendUint64(nil, h.term),
		string(storageVersionKey):  []byte(storageVersion),
	}
	if h.compacted > 0 {
		// Only scheduled: etcd removes what the revision supersedes when it starts (storage/mvcc/kvstore.go, restore).
		values[string(scheduledCompactKey)] = revisionKey(h.compacted, 0, false)
	}
	for name, value := range values {
		if err := meta.Put([]byte(name), value); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) version(body []byte) error {
	v, err := parseVersion(body)
	if err != nil {
		return err
	}
	if w.count > 0 {
		return errors.New("the stream has a version after a lease")
	}
	if v.revision < 1 || v.sub < 0 || v.version < 0 {
		return fmt.Errorf("version %d.%d of a key is negative or zero", v.revision, v.sub)
	}
	if v.revision < w.last.revision || (w.versions > 0 && v.revision == w.last.revision && v.sub <= w.last.sub) {
		return fmt.Errorf("revision %d.%d comes after %d.%d", v.revision, v.sub, w.last.revision, w.last.sub)
	}
	w.last.revision, w.last.sub = v.revision, v.sub
	isTombstone := v.version == 0
	message := &mvccpb.KeyValue{Key: v.key}
	if !isTombstone {
		message.ModRevision, message.CreateRevision, message.Version = v.revision, v.create, v.version
		message.Lease, message.Value = v.lease, v.value
	}
	value, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	w.versions++
	return w.put(w.keys, revisionKey(v.revision, v.sub, isTombstone), value)
}

func (w *writer) lease(body []byte) error {
	l, err := parseLease(body)
	if err != nil {
		return err
	}
	w.count++
	return w.put(w.leases, leaseKey(l.id), marshalLease(l))
}

func (w *writer) end(body []byte) error {
	versions, leases, err := parseEnd(body)
	if err != nil {
		return err
	}
	if versions != w.versions || leases != w.count {
		return fmt.Errorf("the stream has %d versions and %d leases, and says %d and %d", w.versions, w.count, versions, leases)
	}
	tx := w.tx
	w.tx = nil
	return tx.Commit()
}

func (w *writer) put(bucket *bolt.Bucket, key, value []byte) error {
	if err := bucket.Put(key, value); err != nil {
		return err
	}
	w.pending += len(key) + len(value)
	if w.pending < transactionBytes {
		return nil
	}
	w.pending = 0
	if err := w.tx.Commit(); err != nil {
		return err
	}
	return w.begin()
}

func (w *writer) begin() (err error) {
	if w.tx, err = w.db.Begin(true); err != nil {
		return err
	}
	if _, err = w.tx.CreateBucketIfNotExists(metaBucket); err != nil {
		return err
	}
	if w.keys, err = w.tx.CreateBucketIfNotExists(keyBucket); err != nil {
		return err
	}
	w.keys.FillPercent = fillPercent
	w.leases, err = w.tx.CreateBucketIfNotExists(leaseBucket)
	return err
}

func (w *writer) rollback() {
	if w.tx != nil {
		w.tx.Rollback()
	}
}

// appendDigest ends the file as `etcdctl snapshot save` does: with the SHA-256 of all before.
func appendDigest(path string) (err error) {
	file, err := os.OpenFile(path, os.O_RDWR, privateMode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	digest := sha256.New()
	if _, err := io.Copy(digest, file); err != nil {
		return err
	}
	if _, err := file.Write(digest.Sum(nil)); err != nil {
		return err
	}
	return file.Sync()
}
