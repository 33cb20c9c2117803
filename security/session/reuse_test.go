package session_test

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bulwark/security/tenant"
)

func TestRefreshTokens(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	other := p.project(t, "other", tenant.Settings{SignUp: true, AutoConfirm: true})
	tokens := []string{p.signUp(t, email, password).str("refresh_token")}
	step := func() string {
		r := p.refresh(t, tokens[len(tokens)-1])
		if r.status != 200 {
			t.Fatalf("refreshing: %d %s", r.status, r.text)
		}
		tokens = append(tokens, r.str("refresh_token"))
		return r.str("access_token")
	}
	step()
	access := step()

	// Of another project: unknown, and nothing happens to the session.
	m := p.mark(t)
	p2 := *p
	p2.Ref, p2.public = other.Ref, other.public
	p2.refresh(t, tokens[2]).refused(t, 400, "refresh_token_not_found")
	for _, bad := range []string{tokens[2][:len(tokens[2])-1], tokens[2] + "A", "A" + tokens[2], "", " " + tokens[2]} {
		if r := p.refresh(t, bad); r.status != 400 || r.text == "" {
			t.Errorf("a malformed token: %d %s", r.status, r.text)
		}
	}
	// Of the right form, for this session and step, but not made by it.
	raw, err := base64.RawURLEncoding.DecodeString(tokens[2])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-5] ^= 1
	sum := sha256.Sum256(raw[:len(raw)-4])
	copy(raw[len(raw)-4:], sum[:])
	p.refresh(t, base64.RawURLEncoding.EncodeToString(raw)).refused(t, 400, "refresh_token_not_found")
	p.expectActs(t, m)

	// Within the window every token of the session is answered with the newest, and no step is taken.
	m = p.mark(t)
	for _, old := range tokens {
		if old == tokens[2] {
			continue
		}
		if r := p.refresh(t, old); r.status != 200 || r.str("refresh_token") != tokens[2] {
			t.Errorf("an old token in the window: %d", r.status)
		}
	}
	p.expectActs(t, m, "session.refresh ok", "session.refresh ok") // tokens were given out, so it is recorded

	// After it the one before is still answered (its reply may have been lost), an older one ends the session.
	p.clock.Advance(10 * time.Second)
	if r := p.refresh(t, tokens[1]); r.status != 200 || r.str("refresh_token") != tokens[2] {
		t.Errorf("the token before: %d %s", r.status, r.text)
	}
	if r := p.do(t, "GET", "/auth/v1/user", nil, bearer(access)); r.status != 200 {
		t.Fatalf("the session ended early: %s", r.text)
	}
	m = p.mark(t)
	r := p.refresh(t, tokens[0])
	r.refused(t, 400, "refresh_token_already_used")
	if r.str("message") != "Invalid Refresh Token: Already Used" {
		t.Errorf("message is %q", r.str("message"))
	}
	p.expectActs(t, m, "session.reuse ok")
	p.refresh(t, tokens[2]).refused(t, 400, "refresh_token_not_found")
	p.do(t, "GET", "/auth/v1/user", nil, bearer(access)).refused(t, 403, "session_not_found")
}

// Fifty tabs that refresh at once take one step together.
func TestParallelRefreshes(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	token := p.signUp(t, email, password).str("refresh_token")
	m := p.mark(t)
	replies := make([]reply, 50)
	var all sync.WaitGroup
	for i := range replies {
		all.Go(func() { replies[i] = p.refresh(t, token) })
	}
	all.Wait()
	next := replies[0].str("refresh_token")
	for _, r := range replies {
		if r.status != 200 || r.str("refresh_token") != next || next == token {
			t.Errorf("a parallel refresh: %d %s", r.status, r.text)
		}
	}
	p.expectActs(t, m, slices.Repeat([]string{"session.refresh ok"}, len(replies))...)
	if r := p.refresh(t, next); r.status != 200 {
		t.Errorf("the next step: %s", r.text)
	}
}

// onRead does something when the first byte is asked for. A client that expects 100 Continue asks for the first byte of a
// body when the handler does, which is after the credentials were proven.
type onRead struct {
	do   func()
	then io.Reader
}

func (r *onRead) Read(b []byte) (int, error) {
	if r.do != nil {
		r.do()
		r.do = nil
	}
	return r.then.Read(b)
}

// A session that ends after the request was let in, and before its work is done, is dead for the work.
func TestSessionEndsDuringRequest(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	token := p.signUp(t, email, password).str("access_token")
	body := &onRead{then: strings.NewReader(`{"data":{"late":true}}`), do: func() {
		if r := p.do(t, "POST", "/auth/v1/logout", nil, bearer(token)); r.status != 204 {
			t.Errorf("logout: %d %s", r.status, r.text)
		}
	}}
	req, err := http.NewRequestWithContext(t.Context(), "PUT", p.server.URL+"/p/"+p.Ref+"/auth/v1/user", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("apikey", p.public)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Expect", "100-continue")
	transport := &http.Transport{ExpectContinueTimeout: time.Minute}
	t.Cleanup(transport.CloseIdleConnections)
	m := p.mark(t)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("answered %d", resp.StatusCode)
	}
	p.expectActs(t, m, "session.end ok", "account.update denied session_not_found")
}
