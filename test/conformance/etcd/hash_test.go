package etcd

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Rule 31: two servers with the same history have the same hash of it.
func TestHashKV(t *testing.T) {
	hashes := map[string][]string{}
	for _, kind := range kinds {
		s := start(t, kind, nil)
		must[*pb.LeaseGrantResponse](t, s, &pb.LeaseGrantRequest{ID: 7, TTL: 1000})
		for at := range 20 {
			must[*pb.PutResponse](t, s, put(fmt.Sprint("k", at%6), fmt.Sprint("v", at)))
			must[*pb.TxnResponse](t, s, do(put("b", "x"), &pb.PutRequest{Key: []byte("a\x00\xff"), Lease: 7}))
		}
		must[*pb.DeleteRangeResponse](t, s, remove("k3", "k5"))
		must[*pb.PutResponse](t, s, put("k3", "again"))
		hash := func(revision int64) {
			response, err := pb.NewMaintenanceClient(s.conn).HashKV(deadline(t), &pb.HashKVRequest{Revision: revision})
			if err == nil {
				if response.Hash == 0 || response.Header.Revision != 43 {
					t.Errorf("%s: %v", kind, response)
				}
				response.Header.Reset()
			}
			hashes[kind] = append(hashes[kind], fmt.Sprint(revision, s.text(response, err)))
		}
		hash(0)
		hash(43)
		hash(20)
		hash(44)
		must[*pb.CompactionResponse](t, s, &pb.CompactionRequest{Revision: 30, Physical: true})
		hash(0)
		hash(35)
		hash(29)
		// A difference: of the compacted revision itself etcd has noted the hash that it had before.
		noted := must[*pb.HashKVResponse](t, s, &pb.HashKVRequest{Revision: 30}).CompactRevision
		if want := map[string]int64{etcd: -1, k8s: 30}[kind]; noted != want {
			t.Errorf("%s: the hash of the compacted revision is from %d on", kind, noted)
		}
		if response := must[*pb.HashResponse](t, s, &pb.HashRequest{}); response.Hash == 0 {
			t.Errorf("%s has no hash", kind)
		}
	}
	for at, wanted := range hashes[etcd] {
		if got := hashes[k8s][at]; got != wanted {
			t.Errorf("hash %d\n got: %s\nwant: %s", at, got, wanted)
		}
	}
}

// Rule 32: blobs, then a digest of them.
func TestSnapshot(t *testing.T) {
	onEach(t, nil, func(t *testing.T, s *server) {
		for at := range 50 {
			must[*pb.PutResponse](t, s, put(fmt.Sprint("k", at), fmt.Sprintf("%50000d", at)))
		}
		stream, err := pb.NewMaintenanceClient(s.conn).Snapshot(context.Background(), &pb.SnapshotRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var bytes []byte
		for {
			part, err := stream.Recv()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if part.Version != "3.7.0" {
				t.Errorf("a snapshot of version %q", part.Version)
			}
			bytes = append(bytes, part.Blob...)
		}
		at := len(bytes) - sha256.Size
		if at <= 50*50_000 || at%512 != 0 || sha256.Sum256(bytes[:at]) != [sha256.Size]byte(bytes[at:]) {
			t.Errorf("a snapshot of %d bytes and its digest", at)
		}
	})
}
