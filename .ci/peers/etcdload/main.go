// Command etcdload puts values of 1 KiB into an etcd from a number of clients, and prints what that took as JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	endpoint := flag.String("endpoint", "", "where etcd is")
	clients := flag.Int("clients", 16, "clients at a time")
	duration := flag.Duration("duration", 10*time.Second, "how long")
	flag.Parse()
	if err := load(*endpoint, *clients, *duration); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func load(endpoint string, clients int, duration time.Duration) error {
	value := string(make([]byte, 1024))
	ctx, cancel := context.WithTimeout(context.Background(), duration)
	defer cancel()
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	errs := make(chan error, clients)
	for c := range clients {
		wg.Go(func() {
			// A connection each, as our own clients have.
			cli, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
			if err != nil {
				errs <- err
				return
			}
			defer cli.Close()
			var mine []time.Duration
			for n := 0; ctx.Err() == nil; n++ {
				start := time.Now()
				if _, err := cli.Put(ctx, fmt.Sprintf("bench/%d/%d", c, n), value); err != nil {
					if ctx.Err() == nil {
						errs <- err
					}
					break
				}
				mine = append(mine, time.Since(start))
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	slices.Sort(took)
	if len(took) == 0 {
		return fmt.Errorf("no put was acknowledged in %v", duration)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": len(took), "p50_us": took[len(took)/2].Microseconds(), "p99_us": took[len(took)*99/100].Microseconds(),
	})
}
