package node

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"bulwark/storage"
)

// TestCompact fills a table, empties it, and gives the room back while the node works.
func TestCompact(t *testing.T) {
	t.Parallel()
	n := open(t, testConfig(t, filepath.Join(t.TempDir(), "data")))
	c := newCaller(t, n)
	who := signedUp(c)
	for range 20 {
		rows := make([]map[string]string, 200)
		for i := range rows {
			rows[i] = map[string]string{"body": strings.Repeat(fmt.Sprint(i), 300)}
		}
		c.do(201, "POST", "/rest/v1/notes", who.AccessToken, rows, nil)
	}
	c.do(201, "POST", "/rest/v1/notes", who.AccessToken, map[string]string{"body": "kept"}, nil)
	c.do(204, "DELETE", "/rest/v1/notes?body=neq.kept", who.AccessToken, nil, nil)
	if err := n.state.Flush(); err != nil {
		t.Fatal(err)
	}
	by := storage.OperatorActor(storage.System, storage.ID{}, storage.ID{}, "console", storage.Origin{})
	did, err := n.compact(t.Context(), by)
	if err != nil || did.After >= did.Before {
		t.Fatalf("%+v %v", did, err)
	}
	var rows []struct{ Body string }
	c.do(200, "GET", "/rest/v1/notes?select=body", who.AccessToken, nil, &rows)
	if len(rows) != 1 || rows[0].Body != "kept" {
		t.Errorf("the rows are %v", rows)
	}
	c.do(201, "POST", "/rest/v1/notes", who.AccessToken, map[string]string{"body": "after"}, nil)
}
