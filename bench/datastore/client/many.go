package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"log"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

const (
	putsPerTransaction = 100
	fillsInFlight      = 8
	// What defragmentation is measured with goes on for so many gets at least.
	leastGets = 100
)

// kinds are what a large cluster's objects are of, as many of each: pods are asked for, the others are there.
var kinds = []string{"pods", "configmaps", "secrets", "events", "replicasets", "endpointslices", "leases/kube-node-lease",
	"serviceaccounts", "example.com/widgets", "jobs"}

// storedKey is the key of any object of a large store, of the length that Kubernetes' names have: those of pods are key's.
func storedKey(place int) string {
	kind, i := kinds[place%len(kinds)], place/len(kinds)
	if kind == "pods" {
		return key(i)
	}
	hash := fnv.New64a()
	hash.Write([]byte(strconv.Itoa(place)))
	suffix := fmt.Sprintf("%016x", hash.Sum64())[:10]
	return fmt.Sprintf("/registry/%s/namespace-%03d/service-%02d-%s-%05d", kind, i%1000, i%37, suffix, i%100_000)
}

// fillMany writes a large store, a hundred objects in a transaction, and compacts it: what has been running has been compacted.
func (b *bench) fillMany() {
	ctx := context.Background()
	transactions := (*keys + putsPerTransaction - 1) / putsPerTransaction
	b.measure("fill", transactions, fillsInFlight, func(c *kubernetes.Client, transaction int) {
		var puts []clientv3.Op
		for place := transaction * putsPerTransaction; place < min(*keys, (transaction+1)*putsPerTransaction); place++ {
			puts = append(puts, clientv3.OpPut(storedKey(place), string(b.value[:sizeOf(place)])))
		}
		if _, err := c.KV.Txn(ctx).Then(puts...).Commit(); err != nil {
			log.Fatalf("fill: %v", err)
		}
	})
	if err := b.compact(ctx); err != nil {
		log.Fatalf("compact: %v", err)
	}
}

// sizeOf is half to one and a half of the usual size, but for pods, which are of that size.
func sizeOf(place int) int {
	if place%len(kinds) == 0 {
		return *valueBytes * 2 / 3
	}
	return *valueBytes/3 + place*7919%(*valueBytes*2/3)
}

// many asks a store that fillMany has filled, and leaves as many objects in it.
func (b *bench) many() {
	ctx := context.Background()
	first := min(*serial, b.objects/2)
	b.value = b.value[:sizeOf(0)]
	read := func(c *kubernetes.Client, i int) { b.revisions[i] = b.get(ctx, c, i) }
	b.measure("get, one at a time", first, 1, read)
	b.measure("get", b.objects, *inFlight, read)
	b.measure("count", 50**lists, 1, func(c *kubernetes.Client, _ int) { b.count(ctx, c) })
	// etcd looks at each key.
	b.measure("count of all", 5**lists, 1, func(c *kubernetes.Client, _ int) { b.countAll(ctx, c) })
	b.measure("list in pages of 500", *lists, 1, func(c *kubernetes.Client, _ int) { b.pages(ctx, c) })
	b.measure("whole list", *lists, 1, func(c *kubernetes.Client, _ int) { b.list(ctx, c) })
	b.measure("streamed list", *lists, 1, func(c *kubernetes.Client, _ int) { b.stream(ctx, c) })
	b.measure("update, one at a time", first, 1, func(c *kubernetes.Client, i int) { b.put(ctx, c, i, b.revisions[i]) })
	b.measure("update", b.objects, *inFlight, func(c *kubernetes.Client, i int) { b.put(ctx, c, i, b.revisions[i]) })
	b.measure("conflicting update", b.objects, *inFlight, func(c *kubernetes.Client, i int) { b.conflict(ctx, c, i) })
	b.watch(ctx)
	b.measure("delete", b.objects, *inFlight, func(c *kubernetes.Client, i int) { b.remove(ctx, c, i) })
	b.measure("create, one at a time", first, 1, func(c *kubernetes.Client, i int) { b.put(ctx, c, i, 0) })
	b.measure("create", b.objects-first, *inFlight, func(c *kubernetes.Client, i int) { b.put(ctx, c, first+i, 0) })
	b.beside("compaction", func() error { return b.compact(ctx) })
	b.beside("defragmentation", func() error {
		_, err := b.clients[1].Defragment(ctx, *endpoint)
		return err
	})
}

// compact returns when what is superseded now is gone.
func (b *bench) compact(ctx context.Context) error {
	client := b.clients[1]
	newest, err := client.KV.Get(ctx, prefix)
	if err == nil {
		_, err = client.Compact(ctx, newest.Header.Revision, clientv3.WithCompactPhysical())
	}
	return err
}

func (b *bench) countAll(ctx context.Context, c *kubernetes.Client) {
	count, err := c.Kubernetes.Count(ctx, "/registry/", kubernetes.CountOptions{})
	if err != nil || count != int64(*keys) {
		log.Fatalf("count of all: %v, %d keys", err, count)
	}
}

// beside measures what takes long, and gets, one at a time, meanwhile.
func (b *bench) beside(name string, action func() error) {
	begun := time.Now()
	var taken time.Duration
	var isOver atomic.Bool
	var group sync.WaitGroup
	group.Go(func() {
		if err := action(); err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		taken = time.Since(begun)
		isOver.Store(true)
	})
	gets := newSamples(1)
	for i := 0; !isOver.Load() || i < leastGets; i++ {
		gets.time(0, func() { b.get(context.Background(), b.clients[0], i%b.objects) })
	}
	group.Wait()
	b.add(name, 1/taken.Seconds(), []time.Duration{taken})
	b.add("get during a "+name, float64(len(gets.all()))/taken.Seconds(), gets.all())
}
