package session

import (
	"container/list"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"bulwark/security/account"
	"bulwark/storage"
)

// audience is who access tokens are for; also the role that they give.
const audience = "authenticated"

// claims is the payload of an access token, in the names that clients and row policies know.
type claims struct {
	Issuer       string              `json:"iss"`
	Subject      string              `json:"sub"`
	Audience     string              `json:"aud"`
	Expires      int64               `json:"exp"`
	IssuedAt     int64               `json:"iat"`
	Email        string              `json:"email"`
	Phone        string              `json:"phone"`
	AppMetadata  account.AppMetadata `json:"app_metadata"`
	UserMetadata jsontext.Value      `json:"user_metadata"`
	Role         string              `json:"role"`
	AAL          string              `json:"aal"`
	AMR          []method            `json:"amr"`
	Session      string              `json:"session_id"`
	Anonymous    bool                `json:"is_anonymous"`
}

// algorithms is the fixed list of what may sign an access token: a token does not choose.
var algorithms = []jose.SignatureAlgorithm{jose.ES256}

// sign makes the access token of a session.
func (s *Sessions) sign(g *granted, u *account.User) (token string, expires time.Time, err error) {
	expires = g.now.Add(s.Lifetime)
	payload, err := json.Marshal(claims{
		Issuer: s.Issuer(g.ref), Subject: g.account.ID.String(), Audience: audience,
		Expires: expires.Unix(), IssuedAt: g.now.Unix(), Email: u.Email, AppMetadata: u.AppMetadata, UserMetadata: u.UserMetadata,
		Role: audience, AAL: g.rec.AAL, AMR: g.rec.AMR, Session: g.id.String(),
	})
	if err != nil {
		return "", expires, fmt.Errorf("encoding an access token: %w", err)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: g.key, KeyID: g.keyID}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", expires, fmt.Errorf("signing an access token: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", expires, fmt.Errorf("signing an access token: %w", err)
	}
	token, err = signed.CompactSerialize()
	return token, expires, err
}

// keySet is a project's public keys (RFC 7517), by which clients verify its tokens without asking.
func keySet(keyID string, key *ecdsa.PrivateKey) jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: keyID, Algorithm: string(jose.ES256), Use: "sig"}}}
}

// maxToken bounds an access token, in bytes: user_metadata is at most 8 KiB.
const maxToken = 16 << 10

// badJWT is the refusal of a token that is not ours, or no longer. why never quotes the token.
func badJWT(code, why string) error {
	return &storage.Error{Fault: storage.Unauthenticated, Code: code,
		Message: "invalid JWT: unable to parse or verify signature, " + why}
}

// A Verified access token: it was signed for the reader's project, is in its time, and its session lives.
type Verified struct {
	Account, Session storage.ID
	AAL              string
	Claims           []byte // the payload; not to be changed
}

// Verify proves an access token in the reader's project, and reads in the same snapshot that its session lives. It refuses
// with Unauthenticated: bad_jwt, jwt_expired, or session_not_found.
func (s *Sessions) Verify(r storage.Reader, token string) (Verified, error) {
	if len(token) > maxToken {
		return Verified{}, badJWT("bad_jwt", "token is too long")
	}
	by := r.By()
	// The signature of a token is checked once. What is remembered is bound to the project; time and session are checked
	// each time. The project's key cannot change under a remembered token: it lasts as long as the project.
	sum := sha256.Sum256([]byte(token))
	v, ok := s.verified.get(sum)
	if !ok {
		var err error
		if v, err = s.check(r, token); err != nil {
			return Verified{}, err
		}
	}
	if v.tenant != by.Tenant() || v.project != by.Project() {
		return Verified{}, badJWT("bad_jwt", "token is of another project")
	}
	if !r.Now().Before(v.expires) {
		return Verified{}, badJWT("jwt_expired", "token has invalid claims: token is expired")
	}
	if !ok {
		s.verified.put(sum, v)
	}
	rec, err := sessions.Get(r, v.Session)
	if storage.IsNotFound(err) {
		return Verified{}, errNoSession
	}
	if err != nil {
		return Verified{}, err
	}
	if rec.Account != v.Account || rec.Project != by.Project() {
		return Verified{}, errNoSession
	}
	return v.Verified, nil
}

// check verifies the signature and the claims that do not change, under the key of the reader's project.
func (s *Sessions) check(r storage.Reader, token string) (*verifiedToken, error) {
	jws, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return nil, badJWT("bad_jwt", "token is malformed or signed with an algorithm that is not ES256")
	}
	ref, keyID, key, err := s.Projects.Signing(r, r.By().Project())
	if err != nil {
		return nil, err
	}
	if jws.Signatures[0].Header.KeyID != keyID {
		return nil, badJWT("bad_jwt", "token is signed with a key that this project does not have")
	}
	payload, err := jws.Verify(key.Public())
	if err != nil {
		return nil, badJWT("bad_jwt", "signature is invalid")
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, badJWT("bad_jwt", "claims are malformed")
	}
	if c.Subject == "" {
		return nil, storage.Errorf(storage.Unauthenticated, "bad_jwt", "invalid claim: missing sub claim")
	}
	subject, err := storage.ParseID(c.Subject)
	session, err2 := storage.ParseID(c.Session)
	switch {
	case errors.Join(err, err2) != nil:
		return nil, badJWT("bad_jwt", "claims are malformed")
	case !sameIssuer(c.Issuer, s.Issuer(ref)):
		return nil, badJWT("bad_jwt", "token has invalid claims: wrong issuer")
	case c.Audience != audience || c.Role != audience:
		return nil, badJWT("bad_jwt", "token has invalid claims: wrong audience")
	}
	return &verifiedToken{
		Verified: Verified{Account: subject, Session: session, AAL: c.AAL, Claims: slices.Clip(payload)},
		tenant:   r.By().Tenant(), project: r.By().Project(), expires: time.Unix(c.Expires, 0),
	}, nil
}

// sameIssuer reports whether two issuers are the same project's auth. Each node of a cluster issues tokens under the address at
// which its clients call it, and every node takes them: who signed is known by the project's key.
func sameIssuer(a, b string) bool {
	left, err := url.Parse(a)
	if err != nil {
		return false
	}
	right, err := url.Parse(b)
	return err == nil && left.Scheme == right.Scheme && left.Path == right.Path
}

type verifiedToken struct {
	Verified
	tenant, project storage.ID
	expires         time.Time
}

// maxVerifiedBytes bounds what verifiedTokens holds: some 10,000 tokens of the usual size.
const maxVerifiedBytes = 16 << 20

// verifiedTokens remembers tokens whose signature was verified, by their SHA-256, least recently used last. It holds no
// token.
type verifiedTokens struct {
	mu    sync.Mutex
	limit int
	bytes int
	at    map[[32]byte]*list.Element
	order *list.List // of *rememberedToken
}

type rememberedToken struct {
	sum [32]byte
	v   *verifiedToken
}

func (t *rememberedToken) size() int { return len(t.v.Claims) + 512 }

func newVerifiedTokens(limit int) *verifiedTokens {
	return &verifiedTokens{limit: limit, at: map[[32]byte]*list.Element{}, order: list.New()}
}

func (c *verifiedTokens) get(sum [32]byte) (*verifiedToken, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.at[sum]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*rememberedToken).v, true
}

func (c *verifiedTokens) put(sum [32]byte, v *verifiedToken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.at[sum]; ok {
		return
	}
	t := &rememberedToken{sum: sum, v: v}
	c.at[sum] = c.order.PushFront(t)
	c.bytes += t.size()
	for c.bytes > c.limit {
		oldest := c.order.Remove(c.order.Back()).(*rememberedToken)
		delete(c.at, oldest.sum)
		c.bytes -= oldest.size()
	}
}

// bearer returns the credential of an Authorization header, or "".
func bearer(header string) string {
	scheme, rest, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(rest)
}
