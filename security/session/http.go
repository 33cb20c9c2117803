package session

import (
	"net/http"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json/jsontext"

	"bulwark/security/account"
	"bulwark/storage"
)

// need says what credential an endpoint needs.
type need uint8

const (
	nothing need = iota // anybody who knows the ref
	aKey                // a key of the project; a person's token is not looked at
	aPerson             // a key, and the access token of a person whose session lives
)

// An endpoint answers one method and path under auth/v1. by is proven; what it returns is JSON, or nil for no content.
type endpoint struct {
	need  need
	serve func(s *Sessions, w http.ResponseWriter, r *http.Request, by storage.Actor) (any, error)
}

// endpoints are those of this package. A slice that adds some (second factors, other providers) has its own handler, which
// the server's mux knows by a longer pattern.
var endpoints = map[string]map[string]endpoint{
	"signup":                {"POST": {aKey, (*Sessions).serveSignUp}},
	"token":                 {"POST": {aKey, (*Sessions).serveToken}},
	"user":                  {"GET": {aPerson, (*Sessions).serveUser}, "PUT": {aPerson, (*Sessions).serveUpdateUser}},
	"logout":                {"POST": {aPerson, (*Sessions).serveLogout}},
	"settings":              {"GET": {aKey, (*Sessions).serveSettings}},
	"health":                {"GET": {nothing, (*Sessions).serveHealth}},
	".well-known/jwks.json": {"GET": {nothing, (*Sessions).serveKeys}},
}

// Handler serves a project's auth/v1. Requests have the project's ref as the path value "ref", and a path in which
// "/auth/v1/" comes before the endpoint.
func (s *Sessions) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := s.serve(w, r)
		switch {
		case err != nil:
			s.writeError(w, r, err)
		case body == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			s.writeJSON(w, r, http.StatusOK, body)
		}
	})
}

func (s *Sessions) serve(w http.ResponseWriter, r *http.Request) (any, error) {
	_, path, _ := strings.Cut(r.URL.Path, "/auth/v1/")
	methods, ok := endpoints[strings.Trim(path, "/")]
	if !ok {
		return nil, storage.Errorf(storage.NotFound, "not_found", "This server does not offer this endpoint")
	}
	m := r.Method
	if m == http.MethodHead {
		m = http.MethodGet
	}
	e, ok := methods[m]
	if !ok {
		return nil, storage.Errorf(storage.BadInput, "method_not_allowed", "This endpoint does not take this method")
	}
	by, err := s.admit(r, e.need)
	if err != nil {
		return nil, err
	}
	return e.serve(s, w, r, by)
}

// admit proves what an endpoint needs. Where nothing is needed the actor is the node itself, reading in the project.
func (s *Sessions) admit(r *http.Request, n need) (storage.Actor, error) {
	if n == nothing {
		tenant, project, err := s.Projects.Project(r.Context(), r.PathValue("ref"))
		return self(tenant, project), err
	}
	c := presented(r)
	if n == aKey {
		c.token = ""
	}
	by, err := s.caller(r, c)
	if err == nil && n == aPerson && by.Kind() != storage.Account {
		err = errNoBearer
	}
	return by, err
}

// credentialsBody is what a client sends to sign up, to sign in, to refresh and to change an account.
type credentialsBody struct {
	Email           string         `json:"email"`
	Phone           string         `json:"phone"`
	Password        string         `json:"password"`
	CurrentPassword string         `json:"current_password"`
	RefreshToken    string         `json:"refresh_token"`
	Data            jsontext.Value `json:"data"`
}

// sessionBody is a session as clients know it.
type sessionBody struct {
	AccessToken  string       `json:"access_token"`
	TokenType    string       `json:"token_type"`
	ExpiresIn    int64        `json:"expires_in"` // seconds
	ExpiresAt    int64        `json:"expires_at"` // seconds since 1970
	RefreshToken string       `json:"refresh_token"`
	User         account.User `json:"user"`
}

func (s *Sessions) user(a *account.Account, by storage.Actor) account.User {
	return account.UserOf(a, by.Tenant(), s.Level(a.Role))
}

func (s *Sessions) session(g *granted, by storage.Actor) (any, error) {
	u := s.user(&g.account, by)
	token, expires, err := s.sign(g, &u)
	if err != nil {
		return nil, err
	}
	return sessionBody{
		AccessToken: token, TokenType: "bearer", ExpiresIn: int64(s.Lifetime.Seconds()), ExpiresAt: expires.Unix(),
		RefreshToken: newRefreshToken(g.rec.Key, g.id, g.rec.Counter), User: u,
	}, nil
}

func (s *Sessions) serveSignUp(w http.ResponseWriter, r *http.Request, by storage.Actor) (any, error) {
	var body credentialsBody
	if err := readJSON(w, r, &body); err != nil {
		return nil, err
	}
	switch {
	case body.Email == "" && body.Phone != "":
		return nil, storage.Errorf(storage.BadInput, "phone_provider_disabled", "Phone signups are disabled")
	case body.Email == "":
		return nil, storage.Errorf(storage.BadInput, "anonymous_provider_disabled", "Anonymous sign-ins are disabled")
	case body.Password == "":
		return nil, invalid("password", "Signup requires a valid password")
	}
	email, err := account.NormalEmail(body.Email)
	if err != nil {
		return nil, err
	}
	if err := account.CheckPassword(body.Password); err != nil {
		return nil, err
	}
	// Checked before the password is hashed: what cannot be stored should cost nothing.
	if _, err := account.MergeMetadata(nil, body.Data); err != nil {
		return nil, err
	}
	g, signedIn, err := s.signUp(r.Context(), by, account.New{Email: email, Metadata: body.Data}, body.Password, r.UserAgent())
	if err != nil {
		return nil, err
	}
	if signedIn {
		return s.session(&g, by)
	}
	u := s.user(&g.account, by)
	if g.pretended {
		u.Identities = []account.Identity{}
	}
	return u, nil
}

func (s *Sessions) serveToken(w http.ResponseWriter, r *http.Request, by storage.Actor) (any, error) {
	grant := r.URL.Query().Get("grant_type")
	if grant != "password" && grant != "refresh_token" {
		return nil, storage.Errorf(storage.BadInput, "invalid_credentials", "unsupported_grant_type")
	}
	var body credentialsBody
	if err := readJSON(w, r, &body); err != nil {
		return nil, err
	}
	var g granted
	var err error
	switch {
	case grant == "refresh_token" && body.RefreshToken == "":
		err = invalid("refresh_token", "refresh_token required")
	case grant == "refresh_token":
		g, err = s.refresh(r.Context(), by, body.RefreshToken)
	case body.Email == "" && body.Phone != "":
		err = storage.Errorf(storage.BadInput, "phone_provider_disabled", "Phone logins are disabled")
	case body.Email == "":
		err = invalid("email", "missing email or phone")
	default:
		// An address that cannot be is one that nobody has: the answer and the work are those of an unknown one.
		email, bad := account.NormalEmail(body.Email)
		if bad != nil {
			email = ""
		}
		g, err = s.signIn(r.Context(), by, email, body.Password, r.UserAgent())
	}
	if err != nil {
		return nil, err
	}
	return s.session(&g, by)
}

func (s *Sessions) serveUser(_ http.ResponseWriter, r *http.Request, by storage.Actor) (any, error) {
	var a account.Account
	err := s.Store.View(r.Context(), by, storage.Intent{Action: "account.read", Object: by.Subject().String()}, func(rd storage.Reader) (err error) {
		a, err = me(rd)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.user(&a, by), nil
}

func (s *Sessions) serveUpdateUser(w http.ResponseWriter, r *http.Request, by storage.Actor) (any, error) {
	var body credentialsBody
	if err := readJSON(w, r, &body); err != nil {
		return nil, err
	}
	if body.Phone != "" {
		return nil, storage.Errorf(storage.BadInput, "phone_provider_disabled", "Phone numbers are not offered by this server")
	}
	a, err := s.update(r.Context(), by, &body)
	if err != nil {
		return nil, err
	}
	return s.user(&a, by), nil
}

func (s *Sessions) serveLogout(_ http.ResponseWriter, r *http.Request, by storage.Actor) (any, error) {
	scope := r.URL.Query().Get("scope")
	switch scope {
	case "":
		scope = "global"
	case "global", "local", "others":
	default:
		return nil, invalid("scope", "Unsupported logout scope: use global, local or others")
	}
	return nil, s.end(r.Context(), by, scope)
}

// settingsBody tells a client how one can sign in here.
type settingsBody struct {
	External         map[string]bool `json:"external"`
	DisableSignUp    bool            `json:"disable_signup"`
	MailerConfirm    bool            `json:"mailer_autoconfirm"`
	PhoneAutoConfirm bool            `json:"phone_autoconfirm"`
	SMSProvider      string          `json:"sms_provider"`
	SAML             bool            `json:"saml_enabled"`
	Passkeys         bool            `json:"passkeys_enabled"`
}

func (s *Sessions) serveSettings(_ http.ResponseWriter, r *http.Request, by storage.Actor) (any, error) {
	var open, confirm bool
	err := s.Store.View(r.Context(), self(by.Tenant(), by.Project()), resolving, func(rd storage.Reader) (err error) {
		open, confirm, _, err = s.Projects.SignUp(rd, by.Project())
		return err
	})
	if err != nil {
		return nil, err
	}
	return settingsBody{
		External:      map[string]bool{"email": true, "phone": false, "anonymous_users": false},
		DisableSignUp: !open, MailerConfirm: confirm,
	}, nil
}

type healthBody struct {
	Version     string `json:"version"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

func (s *Sessions) serveHealth(http.ResponseWriter, *http.Request, storage.Actor) (any, error) {
	// Tools look for this name to know what they speak to.
	return healthBody{Version: s.Version, Name: "GoTrue", Description: "Bulwark speaks the protocol of GoTrue, a user registration and authentication API"}, nil
}

func (s *Sessions) serveKeys(w http.ResponseWriter, r *http.Request, by storage.Actor) (any, error) {
	var keys jose.JSONWebKeySet
	err := s.Store.View(r.Context(), by, resolving, func(rd storage.Reader) error {
		_, keyID, key, err := s.Projects.Signing(rd, by.Project())
		if err == nil {
			keys = keySet(keyID, key)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	w.Header().Set("Cache-Control", "public, max-age=600")
	return keys, nil
}
