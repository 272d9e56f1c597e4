package linearizability

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	prefix      = "key/"
	afterPrefix = "key0"
	callLimit   = 2 * time.Second
)

func keyName(key int) []byte { return fmt.Appendf(nil, "%s%d", prefix, key) }

func keyOf(name []byte) int {
	key, err := strconv.Atoi(strings.TrimPrefix(string(name), prefix))
	if err != nil {
		panic(err)
	}
	return key
}

func cellOf(kv *mvccpb.KeyValue) cell {
	if kv == nil {
		return cell{}
	}
	value, _ := strconv.ParseInt(string(kv.Value), 10, 64)
	return cell{value: value, create: kv.CreateRevision, mod: kv.ModRevision, version: kv.Version, lease: int(kv.Lease)}
}

// Everything that clients did, as porcupine wants it.
type history struct {
	lock       sync.Mutex
	operations []porcupine.Operation
	started    time.Time
}

func (h *history) now() int64 { return time.Since(h.started).Nanoseconds() }

func (h *history) add(operation porcupine.Operation) {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.operations = append(h.operations, operation)
}

// Each value is written once.
var values atomic.Int64

// run makes random requests, one after the other, until the context ends.
func (h *history) run(ctx context.Context, id int, conn *grpc.ClientConn, withLeases bool) {
	random := rand.New(rand.NewPCG(uint64(id), 2026))
	var seen [keyCount]int64
	for ctx.Err() == nil {
		wanted := choose(random, &seen)
		if !withLeases {
			if wanted.kind == grantLease || wanted.kind == revokeLease {
				continue
			}
			wanted.lease = 0
		}
		call := h.now()
		reply, err := ask(ctx, conn, wanted)
		returned := h.now()
		if err != nil {
			// A read that got no answer says nothing.
			if wanted.kind == getKey || wanted.kind == listKeys {
				continue
			}
			reply = response{isUnknown: true}
		}
		for key, cell := range reply.cells {
			if cell.mod != 0 {
				seen[key] = cell.mod
			}
		}
		h.add(porcupine.Operation{ClientId: id, Input: wanted, Call: call, Output: reply, Return: returned})
		time.Sleep(time.Duration(random.IntN(20_000)) * time.Microsecond)
	}
}

func choose(random *rand.Rand, seen *[keyCount]int64) request {
	r := request{key: random.IntN(keyCount)}
	switch chance := random.IntN(100); {
	case chance < 20:
		r.kind = putKey
		if random.IntN(3) == 0 {
			r.lease = 1 + random.IntN(leaseCount)
		}
	case chance < 40:
		r.kind = getKey
	case chance < 60:
		r.kind, r.expected = compareAndSwap, seen[r.key]
	case chance < 75:
		r.kind = putTwo
	case chance < 82:
		r.kind = deleteKey
	case chance < 92:
		r.kind = listKeys
	case chance < 96:
		r.kind, r.key, r.lease = grantLease, 0, 1+random.IntN(leaseCount)
	default:
		r.kind, r.key, r.lease = revokeLease, 0, 1+random.IntN(leaseCount)
	}
	if r.kind == putKey || r.kind == compareAndSwap || r.kind == putTwo {
		r.value = values.Add(1)
	}
	return r
}

func ask(ctx context.Context, conn *grpc.ClientConn, r request) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	kv, lease := pb.NewKVClient(conn), pb.NewLeaseClient(conn)
	value := strconv.AppendInt(nil, r.value, 10)
	out := response{succeeded: true}
	read := func(kvs ...*mvccpb.KeyValue) {
		for _, kv := range kvs {
			if kv != nil {
				out.cells[keyOf(kv.Key)] = cellOf(kv)
			}
		}
	}
	var header *pb.ResponseHeader
	var err error
	switch r.kind {
	case putKey:
		var reply *pb.PutResponse
		reply, err = kv.Put(ctx, &pb.PutRequest{Key: keyName(r.key), Value: value, Lease: int64(r.lease), PrevKv: true})
		header = reply.GetHeader()
		read(reply.GetPrevKv())
	case getKey, listKeys:
		request := &pb.RangeRequest{Key: keyName(r.key)}
		if r.kind == listKeys {
			request = &pb.RangeRequest{Key: []byte(prefix), RangeEnd: []byte(afterPrefix)}
		}
		var reply *pb.RangeResponse
		reply, err = kv.Range(ctx, request)
		header = reply.GetHeader()
		read(reply.GetKvs()...)
	case deleteKey:
		var reply *pb.DeleteRangeResponse
		reply, err = kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: keyName(r.key), PrevKv: true})
		header = reply.GetHeader()
		read(reply.GetPrevKvs()...)
	case compareAndSwap, putTwo:
		var reply *pb.TxnResponse
		reply, err = kv.Txn(ctx, transaction(r, value))
		header = reply.GetHeader()
		out.succeeded = reply.GetSucceeded()
		for _, part := range reply.GetResponses() {
			read(part.GetResponseRange().GetKvs()...)
		}
	case grantLease:
		var reply *pb.LeaseGrantResponse
		reply, err = lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(r.lease), TTL: 100_000})
		header = reply.GetHeader()
		if status.Code(err) == codes.FailedPrecondition {
			return response{}, nil
		}
	case revokeLease:
		var reply *pb.LeaseRevokeResponse
		reply, err = lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: int64(r.lease)})
		header = reply.GetHeader()
	}
	if status.Code(err) == codes.NotFound {
		return response{noSuchLease: true}, nil
	}
	out.revision = header.GetRevision()
	return out, err
}

func transaction(r request, value []byte) *pb.TxnRequest {
	put := func(key int) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: keyName(key), Value: value}}}
	}
	get := func(key int) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: keyName(key)}}}
	}
	if r.kind == putTwo {
		second, third := (r.key+1)%keyCount, (r.key+2)%keyCount
		return &pb.TxnRequest{Success: []*pb.RequestOp{put(r.key), put(second), get(third)}}
	}
	unchanged := &pb.Compare{Key: keyName(r.key), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: r.expected}}
	return &pb.TxnRequest{Compare: []*pb.Compare{unchanged}, Success: []*pb.RequestOp{put(r.key)}, Failure: []*pb.RequestOp{get(r.key)}}
}
