package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"bulwark/web/api"
	"bulwark/web/client"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bulwark": main})
}

// TestScripts runs the scripts of testdata. Beside testscript's own, they have the commands
//
//	code N args…       run bulwark with args, and expect exit code N
//	await DIR state    wait until the node on DIR is ready, or sealed
//	field FILE NAME V  set the variable V to a field of the JSON in FILE
//	put FILE TEXT      write a file
//	notin DIR WORD     expect WORD in no file below DIR
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("BULWARK_LISTEN", "localhost:0")
			e.Setenv("BULWARK_CLUSTER_LISTEN", "localhost:0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code, "await": await, "field": field, "notin": notIn,
			"put": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(args[1]+"\n"), 0o600))
			},
		},
	})
}

func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N args…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("bulwark", args[1:]...)
	got := 0
	if err != nil {
		text := err.Error()
		n, aerr := strconv.Atoi(strings.TrimPrefix(text, "exit status "))
		if aerr != nil {
			ts.Fatalf("%v", err)
		}
		got = n
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await DIR ready|sealed")
	}
	dir := ts.MkAbs(args[0])
	c, err := client.New(client.Options{Socket: client.SocketPath(dir), Data: dir})
	ts.Check(err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := client.Call(ctx, c, api.StatusRoute, api.Empty{})
		if err == nil && (args[1] == "ready" && s.Ready || args[1] == "sealed" && s.Sealed) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("the node on %s is not %s: %v %v", dir, args[1], err, s.Reasons)
		}
	}
}

func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: field FILE NAME VAR")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
	for name := range strings.SplitSeq(args[1], ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[name]
		case []any:
			i, err := strconv.Atoi(name)
			ts.Check(err)
			v = at[i]
		}
	}
	s, ok := v.(string)
	if !ok {
		ts.Fatalf("%s has no text %s", args[0], args[1])
	}
	ts.Setenv(args[2], s)
}

func notIn(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: notin DIR WORD")
	}
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), args[1]) {
			ts.Fatalf("%s is in %s", args[1], path)
		}
		return err
	}))
}
