package session_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"bulwark/security/tenant"
	"bulwark/storage"
)

// signing returns the key that signs a project's tokens.
func (p *project) signing(t *testing.T) (kid string, key *ecdsa.PrivateKey) {
	t.Helper()
	by := storage.JobActor(p.world.tenant, p.ID, "test")
	err := p.DB.View(t.Context(), by, storage.Intent{Action: "credential.resolve"}, func(r storage.Reader) (err error) {
		_, kid, key, err = p.tenants.Signing(r, p.ID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return kid, key
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, kid string, key any, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every way in which a token can be wrong, one at a time, from one that is right.
func TestAccessTokens(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	other := p.project(t, "other", tenant.Settings{SignUp: true, AutoConfirm: true})
	token := p.signUp(t, email, password).str("access_token")
	stranger := payload(t, other.signUp(t, "eve@example.com", password).str("access_token"))
	good := payload(t, token)
	kid, key := p.signing(t)
	otherKid, otherKey := other.signing(t)
	fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	with := func(changes map[string]any) map[string]any {
		c := maps.Clone(good)
		for name, v := range changes {
			if v == nil {
				delete(c, name)
			} else {
				c[name] = v
			}
		}
		return c
	}
	es := func(changes map[string]any) string { return sign(t, jose.ES256, kid, key, with(changes)) }
	part := strings.Split(token, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT","kid":"` + kid + `"}`))
	for name, c := range map[string]struct{ token, code string }{
		"ours":                            {token, ""},
		"signed like ours":                {es(nil), ""},
		"alg none":                        {none + "." + part[1] + ".", "bad_jwt"},
		"alg none with a signature":       {none + "." + part[1] + "." + part[2], "bad_jwt"},
		"HS256 with the public key":       {sign(t, jose.HS256, kid, public, good), "bad_jwt"},
		"ES256 with another key":          {sign(t, jose.ES256, kid, fresh, good), "bad_jwt"},
		"another project's key":           {sign(t, jose.ES256, otherKid, otherKey, good), "bad_jwt"},
		"another project's key, our kid":  {sign(t, jose.ES256, kid, otherKey, good), "bad_jwt"},
		"our key, another kid":            {sign(t, jose.ES256, "x", key, good), "bad_jwt"},
		"cut":                             {token[:len(token)-4], "bad_jwt"},
		"changed payload":                 {part[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"x"}`)) + "." + part[2], "bad_jwt"},
		"two parts":                       {part[0] + "." + part[1], "bad_jwt"},
		"too long":                        {token + strings.Repeat("a", 20000), "bad_jwt"},
		"expired":                         {es(map[string]any{"exp": p.clock.Now().Unix()}), "bad_jwt"},
		"no exp":                          {es(map[string]any{"exp": nil}), "bad_jwt"},
		"wrong iss":                       {es(map[string]any{"iss": stranger["iss"]}), "bad_jwt"},
		"no iss":                          {es(map[string]any{"iss": nil}), "bad_jwt"},
		"wrong aud":                       {es(map[string]any{"aud": "somebody"}), "bad_jwt"},
		"wrong role":                      {es(map[string]any{"role": "service_role"}), "bad_jwt"},
		"no sub":                          {es(map[string]any{"sub": nil}), "bad_jwt"},
		"sub is no id":                    {es(map[string]any{"sub": "ada"}), "bad_jwt"},
		"no session":                      {es(map[string]any{"session_id": nil}), "bad_jwt"},
		"a session that does not exist":   {es(map[string]any{"session_id": "00000000-0000-7000-8000-000000000000"}), "session_not_found"},
		"somebody else's session":         {es(map[string]any{"session_id": stranger["session_id"]}), "session_not_found"},
		"somebody else's session and sub": {es(map[string]any{"session_id": stranger["session_id"], "sub": stranger["sub"]}), "session_not_found"},
	} {
		for range 2 { // the second time may be answered from memory
			r := p.do(t, "GET", "/auth/v1/user", nil, bearer(c.token))
			if c.code == "" {
				if r.status != 200 {
					t.Errorf("%s: %d %s", name, r.status, r.text)
				}
				continue
			}
			r.refused(t, 403, c.code)
			// The algorithm is refused before any key is tried.
			if by := strings.Contains(r.text, "algorithm"); by != (strings.HasPrefix(name, "alg ") || strings.HasPrefix(name, "HS256") || name == "two parts") {
				t.Errorf("%s: %s", name, r.text)
			}
			if t.Failed() {
				t.Fatal(name)
			}
		}
	}
	// A token that one project knows is not known to another.
	other.do(t, "GET", "/auth/v1/user", nil, bearer(token)).refused(t, 403, "bad_jwt")

	// A remembered token expires all the same.
	p.clock.Advance(time.Hour - time.Second)
	if r := p.do(t, "GET", "/auth/v1/user", nil, bearer(token)); r.status != 200 {
		t.Errorf("a second before its end: %s", r.text)
	}
	p.clock.Advance(time.Second)
	p.do(t, "GET", "/auth/v1/user", nil, bearer(token)).refused(t, 403, "bad_jwt")
}
