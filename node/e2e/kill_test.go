//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// kills is how often TestKill cuts the node off under load.
const kills = 50

// TestKill kills the node at random moments under load, and reads as an outsider what it kept: every acknowledged row, none
// half there, and exactly one audit event for each mutation.
func TestKill(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, data)
	who := p.signUp(t, "killer@example.com")
	var (
		mu    sync.Mutex
		acked = map[string]bool{} // id → whether it was acknowledged
		next  int
	)
	insert := func(ctx context.Context, p *process) error {
		mu.Lock()
		next++
		n := next
		id := fmt.Sprintf("00000000-0000-4000-8000-%012d", n)
		acked[id] = false
		mu.Unlock()
		// The body says its own length, so that a half of it would show.
		body := id + ":" + strconv.Itoa(n) + ":" + filler(n)
		status, b, err := p.do(ctx, "POST", "/rest/v1/notes", who.AccessToken, map[string]string{"id": id, "body": body})
		if err != nil {
			return err
		}
		if status != http.StatusCreated {
			return fmt.Errorf("inserting: %d %s", status, b)
		}
		mu.Lock()
		acked[id] = true
		mu.Unlock()
		return nil
	}
	for n := range kills {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := insert(ctx, p); err != nil {
						return // the node is gone; whether the row is there, the checker must find either way sound
					}
				}
			})
		}
		// Anywhere between the first requests and several background commits.
		select {
		case <-time.After(time.Duration(20+rand.IntN(400)) * time.Millisecond):
		case <-p.ended:
			t.Fatalf("the node ended by itself before kill %d\n%s", n, p.log)
		}
		p.kill()
		cancel()
		wg.Wait()
		p = p.again(t)
	}
	check(t, p, who, acked)
	p.stop(t)
}

func filler(n int) string {
	b := make([]byte, 900)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz"[(i+n)%26]
	}
	return string(b)
}

func check(t *testing.T, p *process, who session, acked map[string]bool) {
	t.Helper()
	rows := map[string]bool{}
	for offset := 0; ; offset += 500 {
		status, b, err := p.do(t.Context(), "GET", fmt.Sprintf("/rest/v1/notes?select=id,body&order=id&limit=500&offset=%d", offset), who.AccessToken, nil)
		if err != nil || status != http.StatusOK {
			t.Fatalf("reading the rows: %d %s %v", status, b, err)
		}
		var page []struct{ ID, Body string }
		if err := json.Unmarshal(b, &page); err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			n, _ := strconv.Atoi(r.ID[len(r.ID)-12:])
			if r.Body != r.ID+":"+strconv.Itoa(n)+":"+filler(n) {
				t.Errorf("row %s is not whole", r.ID)
			}
			if rows[r.ID] {
				t.Errorf("row %s is there twice", r.ID)
			}
			rows[r.ID] = true
		}
		if len(page) < 500 {
			break
		}
	}
	lost, known := 0, 0
	for id, ok := range acked {
		if ok {
			known++
			if !rows[id] {
				lost++
			}
		}
	}
	inserts := 0
	for _, e := range exported(t, p) {
		if e["action"] == "rows.insert" && e["outcome"] == "ok" {
			inserts++
		}
	}
	t.Logf("%d rows sent, %d acknowledged, %d there, %d lost, %d audit events of inserts", len(acked), known, len(rows), lost, inserts)
	if lost > 0 || known == 0 {
		t.Errorf("%d of %d acknowledged rows are lost", lost, known)
	}
	if inserts != len(rows) {
		t.Errorf("%d rows and %d events that say so", len(rows), inserts)
	}
	for id := range rows {
		if _, sent := acked[id]; !sent {
			t.Errorf("row %s was never sent", id)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(p.Data, "*", "*.tmp")); len(left) > 0 {
		t.Errorf("the kills left %v behind", left)
	}
}
