package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stream lists with RangeStream; a server that does not have it, as kine, is asked for a whole list.
func (b *bench) stream(ctx context.Context, c *kubernetes.Client) {
	request := &etcdserverpb.RangeRequest{Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix))}
	call, err := etcdserverpb.NewKVClient(c.ActiveConnection()).RangeStream(ctx, request)
	if err != nil {
		log.Fatalf("stream: %v", err)
	}
	found := 0
	for {
		resp, err := call.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if status.Code(err) == codes.Unimplemented {
			b.list(ctx, c)
			return
		}
		if err != nil {
			log.Fatalf("stream: %v", err)
		}
		found += len(resp.RangeResponse.Kvs)
	}
	if found != b.objects {
		log.Fatalf("stream: %d keys", found)
	}
}

// lateLimit is how long the last events may take.
const lateLimit = 20 * time.Second

// watch measures how long a write takes to reach each of many watchers: the value has its time.
func (b *bench) watch(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var mutex sync.Mutex
	var latencies []time.Duration
	var group sync.WaitGroup
	var received atomic.Int64
	for i := range *watchers {
		channel := b.watchFromNow(ctx, i)
		group.Go(func() {
			var own []time.Duration
			for response := range channel {
				now := time.Now().UnixNano()
				received.Add(int64(len(response.Events)))
				for _, event := range response.Events {
					own = append(own, time.Duration(now-int64(binary.BigEndian.Uint64(event.Kv.Value))))
				}
			}
			mutex.Lock()
			latencies = append(latencies, own...)
			mutex.Unlock()
		})
	}
	begun := time.Now()
	ticker := time.NewTicker(time.Second / time.Duration(*writeRate))
	written := 0
	slots := make(chan struct{}, *inFlight)
	var writes sync.WaitGroup
	for ; time.Since(begun) < *watchFor; written++ {
		<-ticker.C
		slots <- struct{}{}
		i := written % b.objects
		writes.Go(func() {
			value := append([]byte(nil), b.value...)
			binary.BigEndian.PutUint64(value, uint64(time.Now().UnixNano()))
			resp, err := b.clients[i%len(b.clients)].OptimisticPut(ctx, key(i), value, b.revisions[i], kubernetes.PutOptions{GetOnFailure: true})
			if err != nil || !resp.Succeeded {
				log.Fatalf("watched put: %v", err)
			}
			b.revisions[i] = resp.Revision
			<-slots
		})
	}
	writes.Wait()
	elapsed := time.Since(begun)
	for late := time.Now().Add(lateLimit); received.Load() < int64(written**watchers) && time.Now().Before(late); {
		time.Sleep(50 * time.Millisecond)
	}
	cancel()
	group.Wait()
	if len(latencies) != written**watchers {
		log.Fatalf("watch: %d events for %d writes and %d watchers", len(latencies), written, *watchers)
	}
	b.add("watch delivery", float64(len(latencies))/elapsed.Seconds(), latencies)
}

// watchFromNow opens a watch behind the newest revision, as kube-apiserver does after a list; kine, asked for no revision,
// sends its whole history.
func (b *bench) watchFromNow(ctx context.Context, i int) clientv3.WatchChan {
	client := b.clients[i%len(b.clients)]
	newest, err := client.KV.Get(ctx, prefix)
	if err != nil {
		log.Fatalf("watch: %v", err)
	}
	channel := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify(),
		clientv3.WithRev(newest.Header.Revision+1))
	<-channel
	return channel
}
