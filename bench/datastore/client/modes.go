package main

import (
	"context"
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

func (b *bench) fill(ctx context.Context) {
	b.measure("create", *keys, *inFlight, func(c *kubernetes.Client, i int) { b.put(ctx, c, i, 0) })
}

// gets asks a server for keys that it is taken to have.
func (b *bench) gets() {
	b.measure("get", *keys, *inFlight, func(c *kubernetes.Client, i int) { b.get(context.Background(), c, i) })
}

// mixed measures reads beside writes: each writer updates keys of its own, as fast as it can.
func (b *bench) mixed() {
	ctx := context.Background()
	b.fill(ctx)
	b.rows = nil
	end := time.Now().Add(*lasting)
	var group sync.WaitGroup
	writes, reads := newSamples(*inFlight), newSamples(*readers)
	for writer := range *inFlight {
		group.Go(func() {
			client := b.clients[writer%len(b.clients)]
			for i := writer; time.Now().Before(end); i = (i + *inFlight) % (*keys - *keys%*inFlight) {
				writes.time(writer, func() { b.put(ctx, client, i, b.revisions[i]) })
			}
		})
	}
	for reader := range *readers {
		group.Go(func() {
			client := b.clients[reader%len(b.clients)]
			for i := reader; time.Now().Before(end); i = (i + 7919) % *keys {
				reads.time(reader, func() { b.get(ctx, client, i) })
			}
		})
	}
	group.Wait()
	b.add("writes", float64(len(writes.all()))/lasting.Seconds(), writes.all())
	b.add("reads beside them", float64(len(reads.all()))/lasting.Seconds(), reads.all())
}

// idle opens watches and waits; whoever started it measures the server between the two lines.
func (b *bench) idle() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.fill(ctx)
	b.rows = nil
	for i := range *watchers {
		b.watchFromNow(ctx, i)
	}
	time.Sleep(*lasting / 2)
	fmt.Println("idle")
	time.Sleep(*lasting)
	fmt.Println("over")
}

// compaction measures gets, one at a time, from the request to compact until all that is superseded is gone.
func (b *bench) compaction() {
	ctx := context.Background()
	b.fill(ctx)
	for range *rounds {
		b.measure("update", *keys, *inFlight, func(c *kubernetes.Client, i int) { b.put(ctx, c, i, b.revisions[i]) })
	}
	b.rows = nil
	var isCompacted atomic.Bool
	begun := time.Now()
	go func() {
		if _, err := b.clients[1].Compact(ctx, b.revisions[*keys-1], clientv3.WithCompactPhysical()); err != nil {
			log.Fatalf("compact: %v", err)
		}
		isCompacted.Store(true)
	}()
	gets := newSamples(1)
	// kine compacts in its own time and answers at once: it is watched for as long as the others take at least.
	for i := 0; !isCompacted.Load() || time.Since(begun) < *lasting; i++ {
		gets.time(0, func() { b.get(ctx, b.clients[0], i%*keys) })
	}
	b.add("get during a compaction", float64(len(gets.all()))/time.Since(begun).Seconds(), gets.all())
}

// catchUp measures gets, one at a time, while many watchers read the whole history, each for a key of its own.
func (b *bench) catchUp() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.fill(ctx)
	for range *rounds {
		b.measure("update", *keys, *inFlight, func(c *kubernetes.Client, i int) { b.put(ctx, c, i, b.revisions[i]) })
	}
	b.rows = nil
	var waiting atomic.Int64
	waiting.Store(int64(*behind))
	begun := time.Now()
	// The first client is for the gets alone.
	watchingClients := b.clients[1:]
	for i := range *behind {
		go func() {
			client := watchingClients[i%len(watchingClients)]
			seen := 0
			for response := range client.Watch(ctx, key(i), clientv3.WithRev(1), clientv3.WithPrevKV()) {
				if seen += len(response.Events); seen == *rounds+1 {
					waiting.Add(-1)
				}
			}
		}()
	}
	gets := newSamples(1)
	for i := 0; waiting.Load() > 0 || time.Since(begun) < *lasting; i++ {
		gets.time(0, func() { b.get(ctx, b.clients[0], i%*keys) })
	}
	b.add("get while watchers catch up", float64(len(gets.all()))/time.Since(begun).Seconds(), gets.all())
}

// samples collects durations of several workers without a lock.
type samples [][]time.Duration

func newSamples(workers int) samples { return make(samples, workers) }

func (s samples) time(worker int, action func()) {
	begun := time.Now()
	action()
	s[worker] = append(s[worker], time.Since(begun))
}

func (s samples) all() []time.Duration {
	var all []time.Duration
	for _, own := range s {
		all = append(all, own...)
	}
	return all
}
