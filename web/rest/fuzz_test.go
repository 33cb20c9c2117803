package rest

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// checkFault fails unless err is nil or an error in PostgREST's shape that a client caused.
func checkFault(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	f, ok := err.(*fault) //nolint:errorlint // faults are never wrapped
	if !ok || f.status < 400 || f.status >= 500 || f.Code == "" {
		t.Fatalf("not a client's error: %#v", err)
	}
	if len(f.Message) > 1000 {
		t.Fatalf("the error is as long as the request: %d bytes", len(f.Message))
	}
	if _, err := json.Marshal(f); err != nil {
		t.Fatal(err)
	}
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{
		"select=*&id=eq.1", "select=a,b:c,\"d,e\"&order=a.desc.nullslast,b", "or=(a.eq.1,and(b.not.in.(1,\"2,3\"),not.or(c.is.null,d.gt.\"x\\\"y\")))",
		"a=not.like(any).{*x*,\"y,z\"}", "a->b->>0=isdistinct.x", "limit=3&offset=-1", "select=x(*)", "select=a::text", "select=a.sum()", "select=...x(y)", "a.b.order=x",
		"or=((((((((((", "and=()", "a=in.(\"x\"y,z)", "a=in.(\"x", "columns=\"a\",b", "order=x(y).desc", "select=a,,b", "%zz=1", "a=eq", "=eq.1", "or=(" + strings.Repeat("not.and(", 80),
	} {
		f.Add(s, "0-9")
	}
	f.Add("limit=5&offset=2", "3-1")
	f.Add("limit=5&offset=2", "4-")
	f.Add("", "99999999999999999999-")
	f.Fuzz(func(t *testing.T, query, span string) {
		q := &request{table: "t"}
		if err := q.parseQuery(query); err != nil {
			checkFault(t, err)
			return
		}
		checkFault(t, q.parseRange(http.Header{"Range": {span}}))
		if q.offset < 0 || q.limit != nil && *q.limit < 0 {
			t.Fatalf("offset %d, limit %d", q.offset, *q.limit)
		}
	})
}

func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `[{"a":1},{"a":[{}]}]`, `[]`, ``, `{"a":1,"a":2}`, "{\"\xff\":1}", `[[[[`, `{"a":"\ud800"}`, `{"a":1e999}`, ` {} x`, `[{"a":1},2]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		records, _, err := parseRecords(body, 20)
		if err != nil {
			checkFault(t, err)
			return
		}
		if !json.Valid(body) {
			t.Fatal("what is not JSON was accepted")
		}
		for _, r := range records {
			for _, raw := range r {
				if !json.Valid(raw) {
					t.Fatalf("a value is not JSON: %q", raw)
				}
			}
		}
		_, err = sameKeys(records)
		checkFault(t, err)
	})
}

func FuzzPrefer(f *testing.F) {
	f.Add("return=representation, count=exact")
	f.Add("handling=strict,max-affected=x")
	f.Add("return=minimal,return=representation,,=,tx=rollback")
	f.Fuzz(func(t *testing.T, s string) {
		_, err := parsePreferences(http.Header{"Prefer": {s}})
		checkFault(t, err)
	})
}
