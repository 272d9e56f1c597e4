package main

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The names of buckets and keys: go.etcd.io/etcd/server/v3, storage/schema/bucket.go.
var (
	keyBucket   = []byte("key")
	metaBucket  = []byte("meta")
	leaseBucket = []byte("lease")
	authBucket  = []byte("auth")
	// Its keys are ids in hexadecimal.
	membersBucket = []byte("members")

	emptyBuckets = []string{"alarm", "cluster", "members", "members_removed", "auth", "authUsers", "authRoles"}

	scheduledCompactKey = []byte("scheduledCompactRev")
	finishedCompactKey  = []byte("finishedCompactRev")
	consistentIndexKey  = []byte("consistent_index")
	termKey             = []byte("term")
	storageVersionKey   = []byte("storageVersion")
	authEnabledKey      = []byte("authEnabled")
)

// What etcd 3.7 writes; older ones have "3.6.0", or no such key.
const storageVersion = "3.7.0"

// A revision as a key of the bucket "key": storage/mvcc/revision.go.
const (
	revisionBytes  = 8 + 1 + 8
	tombstoneBytes = revisionBytes + 1
	tombstoneMark  = 't'
)

func revisionKey(revision, sub int64, isTombstone bool) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, tombstoneBytes), uint64(revision))
	key = binary.BigEndian.AppendUint64(append(key, '_'), uint64(sub))
	if isTombstone {
		key = append(key, tombstoneMark)
	}
	return key
}

func parseRevisionKey(key []byte) (revision, sub int64, isTombstone bool, err error) {
	isTombstone = len(key) == tombstoneBytes && key[revisionBytes] == tombstoneMark
	if (len(key) != revisionBytes && !isTombstone) || key[8] != '_' {
		return 0, 0, false, fmt.Errorf("%x is no revision", key)
	}
	revision, sub = int64(binary.BigEndian.Uint64(key)), int64(binary.BigEndian.Uint64(key[9:]))
	if revision < 0 || sub < 0 {
		return 0, 0, false, fmt.Errorf("revision %d.%d is negative", revision, sub)
	}
	return revision, sub, isTombstone, nil
}

// A lease as in the bucket "lease": lease/leasepb/lease.proto, whose Go package would bring all of gRPC.
const (
	leaseID        protowire.Number = 1
	leaseTTL       protowire.Number = 2
	leaseRemaining protowire.Number = 3
)

func leaseKey(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func marshalLease(l lease) []byte {
	var message []byte
	for _, field := range []struct {
		number protowire.Number
		value  int64
	}{{leaseID, l.id}, {leaseTTL, l.ttl}, {leaseRemaining, l.remaining}} {
		if field.value != 0 {
			message = protowire.AppendTag(message, field.number, protowire.VarintType)
			message = protowire.AppendVarint(message, uint64(field.value))
		}
	}
	return message
}

func parseLeaseMessage(message []byte) (lease, error) {
	var l lease
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return l, protowire.ParseError(size)
		}
		message = message[size:]
		if kind != protowire.VarintType {
			return l, errors.New("a lease has a field that is no number")
		}
		value, size := protowire.ConsumeVarint(message)
		if size < 0 {
			return l, protowire.ParseError(size)
		}
		message = message[size:]
		switch number {
		case leaseID:
			l.id = int64(value)
		case leaseTTL:
			l.ttl = int64(value)
		case leaseRemaining:
			l.remaining = int64(value)
		}
	}
	return l, nil
}
