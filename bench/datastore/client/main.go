// Drives one etcd v3 server with the requests that kube-apiserver sends, and prints what it measured
// as JSON. Each row of -mode=requests runs for a fixed number of requests, so that every server does the same work.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

const prefix = "/registry/pods/"

var (
	mode        = flag.String("mode", "requests", "requests, gets, mixed, idle, compaction, catch-up, fill or many")
	endpoint    = flag.String("endpoint", "http://127.0.0.1:2379", "where the server listens")
	keys        = flag.Int("keys", 20_000, "objects in the store")
	valueBytes  = flag.Int("value-bytes", 1500, "size of an object")
	connections = flag.Int("connections", 8, "connections, which share the requests")
	inFlight    = flag.Int("in-flight", 64, "requests at a time")
	serial      = flag.Int("serial", 1000, "requests of the rows with one at a time")
	lists       = flag.Int("lists", 10, "lists of each kind")
	watchers    = flag.Int("watchers", 50, "watchers of the whole prefix")
	writeRate   = flag.Int("write-rate", 500, "writes per second while watched")
	watchFor    = flag.Duration("watch-for", 5*time.Second, "how long the watchers are measured")
	lasting     = flag.Duration("for", 10*time.Second, "how long mixed and idle take")
	readers     = flag.Int("readers", 4, "readers beside the writers of -mode=mixed")
	rounds      = flag.Int("rounds", 5, "updates of each key before the compaction, or before the watchers catch up")
	behind      = flag.Int("behind", 5000, "watchers of one key each that -mode=catch-up starts at the first revision")
)

// Row is one line of the table.
type Row struct {
	Name      string  `json:"name"`
	PerSecond float64 `json:"perSecond"`
	P50Ms     float64 `json:"p50Ms"`
	P99Ms     float64 `json:"p99Ms"`
	MaxMs     float64 `json:"maxMs"`
}

type bench struct {
	clients []*kubernetes.Client
	value   []byte
	// How many objects are below the prefix, and the newest revision of each.
	objects   int
	revisions []int64
	rows      []Row
}

func main() {
	flag.Parse()
	b := &bench{value: make([]byte, *valueBytes), objects: *keys}
	if *mode == "fill" || *mode == "many" {
		b.objects = *keys / len(kinds)
	}
	b.revisions = make([]int64, b.objects)
	for i := range b.value {
		b.value[i] = byte('a' + i%26)
	}
	for range *connections {
		client, err := kubernetes.New(clientv3.Config{Endpoints: []string{*endpoint}, DialTimeout: 10 * time.Second})
		if err != nil {
			log.Fatal(err)
		}
		defer client.Close()
		b.clients = append(b.clients, client)
	}
	modes := map[string]func(){"requests": b.run, "gets": b.gets, "mixed": b.mixed, "idle": b.idle, "compaction": b.compaction,
		"catch-up": b.catchUp, "fill": b.fillMany, "many": b.many}
	run, known := modes[*mode]
	if !known {
		log.Fatalf("cannot use -mode=%s: allowed are requests, gets, mixed, idle, compaction, catch-up, fill and many", *mode)
	}
	run()
	if err := json.NewEncoder(os.Stdout).Encode(b.rows); err != nil {
		log.Fatal(err)
	}
}

func (b *bench) run() {
	ctx := context.Background()
	first := min(*serial, b.objects/2)
	b.measure("create, one at a time", first, 1, func(c *kubernetes.Client, i int) { b.put(ctx, c, i, 0) })
	b.measure("create", b.objects-first, *inFlight, func(c *kubernetes.Client, i int) { b.put(ctx, c, first+i, 0) })
	b.measure("update, one at a time", first, 1, func(c *kubernetes.Client, i int) { b.put(ctx, c, i, b.revisions[i]) })
	b.measure("update", b.objects, *inFlight, func(c *kubernetes.Client, i int) { b.put(ctx, c, i, b.revisions[i]) })
	b.measure("conflicting update", b.objects, *inFlight, func(c *kubernetes.Client, i int) { b.conflict(ctx, c, i) })
	b.measure("get", b.objects, *inFlight, func(c *kubernetes.Client, i int) { b.get(ctx, c, i) })
	b.measure("whole list", *lists, 1, func(c *kubernetes.Client, _ int) { b.list(ctx, c) })
	b.measure("list in pages of 500", *lists, 1, func(c *kubernetes.Client, _ int) { b.pages(ctx, c) })
	b.measure("streamed list", *lists, 1, func(c *kubernetes.Client, _ int) { b.stream(ctx, c) })
	b.measure("count", 50**lists, 1, func(c *kubernetes.Client, _ int) { b.count(ctx, c) })
	b.watch(ctx)
	b.measure("delete", b.objects, *inFlight, func(c *kubernetes.Client, i int) { b.remove(ctx, c, i) })
}

// measure sends count requests, so many at a time, over all connections.
func (b *bench) measure(name string, count, atATime int, request func(*kubernetes.Client, int)) {
	latencies := make([]time.Duration, count)
	var next atomic.Int64
	var group sync.WaitGroup
	begun := time.Now()
	for worker := range atATime {
		group.Go(func() {
			client := b.clients[worker%len(b.clients)]
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				sent := time.Now()
				request(client, i)
				latencies[i] = time.Since(sent)
			}
		})
	}
	group.Wait()
	b.add(name, float64(count)/time.Since(begun).Seconds(), latencies)
}

func (b *bench) add(name string, perSecond float64, latencies []time.Duration) {
	slices.Sort(latencies)
	ms := func(quantile float64) float64 {
		if len(latencies) == 0 {
			return 0
		}
		return latencies[int(quantile*float64(len(latencies)-1))].Seconds() * 1000
	}
	row := Row{Name: name, PerSecond: perSecond, P50Ms: ms(0.5), P99Ms: ms(0.99), MaxMs: ms(1)}
	b.rows = append(b.rows, row)
	fmt.Fprintf(os.Stderr, "%-24s %10.1f/s  p50 %8.2f ms  p99 %8.2f ms  max %8.2f ms\n",
		row.Name, row.PerSecond, row.P50Ms, row.P99Ms, row.MaxMs)
}

func key(i int) string {
	return fmt.Sprintf("%snamespace-%03d/pod-%08d", prefix, i%100, i)
}

func (b *bench) put(ctx context.Context, c *kubernetes.Client, i int, revision int64) {
	resp, err := c.OptimisticPut(ctx, key(i), b.value, revision, kubernetes.PutOptions{GetOnFailure: revision != 0})
	if err != nil || !resp.Succeeded {
		log.Fatalf("put %s at %d: %v %+v", key(i), revision, err, resp)
	}
	b.revisions[i] = resp.Revision
}

func (b *bench) conflict(ctx context.Context, c *kubernetes.Client, i int) {
	resp, err := c.OptimisticPut(ctx, key(i), b.value, 1, kubernetes.PutOptions{GetOnFailure: true})
	if err != nil || resp.Succeeded || resp.KV == nil {
		log.Fatalf("conflict %s: %v %+v", key(i), err, resp)
	}
}

// get returns the revision that it has found.
func (b *bench) get(ctx context.Context, c *kubernetes.Client, i int) int64 {
	resp, err := c.Kubernetes.Get(ctx, key(i), kubernetes.GetOptions{})
	if err != nil || resp.KV == nil {
		log.Fatalf("get %s: %v", key(i), err)
	}
	return resp.KV.ModRevision
}

func (b *bench) remove(ctx context.Context, c *kubernetes.Client, i int) {
	resp, err := c.OptimisticDelete(ctx, key(i), b.revisions[i], kubernetes.DeleteOptions{GetOnFailure: true})
	if err != nil || !resp.Succeeded {
		log.Fatalf("delete %s: %v %+v", key(i), err, resp)
	}
}

func (b *bench) list(ctx context.Context, c *kubernetes.Client) {
	resp, err := c.Kubernetes.List(ctx, prefix, kubernetes.ListOptions{})
	if err != nil || len(resp.Kvs) != b.objects {
		log.Fatalf("list: %v, %d keys", err, len(resp.Kvs))
	}
}

func (b *bench) pages(ctx context.Context, c *kubernetes.Client) {
	found := 0
	options := kubernetes.ListOptions{Limit: 500}
	for {
		resp, err := c.Kubernetes.List(ctx, prefix, options)
		if err != nil {
			log.Fatalf("page: %v", err)
		}
		found += len(resp.Kvs)
		if int64(len(resp.Kvs)) >= resp.Count {
			break
		}
		options.Revision = resp.Revision
		options.Continue = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	if found != b.objects {
		log.Fatalf("pages: %d keys", found)
	}
}

func (b *bench) count(ctx context.Context, c *kubernetes.Client) {
	count, err := c.Kubernetes.Count(ctx, prefix, kubernetes.CountOptions{})
	if err != nil || count != int64(b.objects) {
		log.Fatalf("count: %v, %d keys", err, count)
	}
}
