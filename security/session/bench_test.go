package session_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkCaller is what every request to a project pays before its work begins.
func BenchmarkCaller(b *testing.B) {
	p := newProject(b)
	token := p.signUp(b, email, password).str("access_token")
	for _, c := range []struct{ name, token string }{{"key", ""}, {"person", token}} {
		b.Run(c.name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/p/"+p.Ref+"/rest/v1/notes", http.NoBody)
			r.SetPathValue("ref", p.Ref)
			r.Header.Set("Apikey", p.public)
			if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+c.token)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.sessions.Caller(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRefresh(b *testing.B) {
	p := newProject(b)
	token := p.signUp(b, email, password).str("refresh_token")
	b.ReportAllocs()
	for b.Loop() {
		r := p.refresh(b, token)
		if token = r.str("refresh_token"); r.status != 200 {
			b.Fatal(r.text)
		}
	}
}
