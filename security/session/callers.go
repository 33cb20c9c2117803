package session

import (
	"net/http"
	"strings"

	"bulwark/storage"
	"bulwark/web/api"
)

// The refusals of a project's surface, as the cloud's gateway words them.
var (
	errNoKey = &storage.Error{Fault: storage.Unauthenticated, Code: "no_api_key", Message: "No API key found in request",
		Hint: "No `apikey` request header or url param was found."}
	errBrowser = &storage.Error{Fault: storage.Unauthenticated, Code: "secret_key_in_browser",
		Message: "Forbidden use of secret API key in browser",
		Hint:    "Secret API keys can only be used in a protected environment and should never be used in a browser. Rotate this key."}
	errNoBearer = storage.Errorf(storage.Unauthenticated, "no_authorization", "This endpoint requires a valid Bearer token")
)

// keyPrefix begins every API key. A bearer that has it is a key, not the token of a person.
const keyPrefix = "sb_"

// credentials are what a request presents: a key of a project, and perhaps a person's access token.
type credentials struct {
	key, token string
}

// presented finds the credentials: the key in the apikey header, else in the query (a websocket in a browser has no headers
// of its own), else as the bearer.
func presented(r *http.Request) credentials {
	var c credentials
	b := bearer(r.Header.Get("Authorization"))
	if strings.HasPrefix(b, keyPrefix) {
		c.key = b
	} else {
		c.token = b
	}
	if q := r.URL.Query().Get("apikey"); q != "" {
		c.key = q
	}
	if h := r.Header.Get("Apikey"); h != "" {
		c.key = h
	}
	return c
}

// Caller implements api.Callers: the actor that a request to the project {ref} proves. A person's token decides, whatever
// the key; without one the key's kind does.
func (s *Sessions) Caller(r *http.Request) (storage.Actor, error) {
	return s.caller(r, presented(r))
}

// Alive implements api.Callers.
func (s *Sessions) Alive(r storage.Reader) error {
	if r.By().Kind() == storage.Account {
		return Live(r, r.By().Session())
	}
	return s.Keys.Alive(r, r.By().Subject())
}

// caller proves credentials in one snapshot: the key is not revoked, the token's session lives.
func (s *Sessions) caller(r *http.Request, c credentials) (storage.Actor, error) {
	tenant, project, err := s.Projects.Project(r.Context(), r.PathValue("ref"))
	if err != nil {
		return storage.Actor{}, err
	}
	if c.key == "" {
		return storage.Actor{}, errNoKey
	}
	origin := api.Origin(r)
	var actor storage.Actor
	var refusal error
	err = s.Store.View(r.Context(), self(tenant, project), resolving, func(rd storage.Reader) error {
		actor, refusal = s.prove(rd, c, origin, r.UserAgent())
		// Nobody was proven, so there is nobody to record; and a flood of guesses must not become a flood of entries.
		if storage.FaultOf(refusal) == storage.Unauthenticated {
			return nil
		}
		return refusal
	})
	if err == nil {
		err = refusal
	}
	if err != nil {
		return storage.Actor{}, err
	}
	return actor, nil
}

func (s *Sessions) prove(r storage.Reader, c credentials, o storage.Origin, agent string) (storage.Actor, error) {
	tenant, project := r.By().Tenant(), r.By().Project()
	kind, id, err := s.Keys.Resolve(r, c.key)
	if err != nil {
		return storage.Actor{}, err
	}
	// Every browser says "Mozilla". A secret key that is in a page is in everybody's hands.
	if kind == storage.Service && strings.Contains(agent, "Mozilla") {
		return storage.Actor{}, errBrowser
	}
	if c.token != "" {
		v, err := s.Verify(r, c.token)
		if err != nil {
			return storage.Actor{}, err
		}
		return storage.AccountActor(tenant, project, v.Account, v.Session, v.Claims, o), nil
	}
	if kind == storage.Service {
		return storage.ServiceActor(tenant, project, id, o), nil
	}
	return storage.AnonymousActor(tenant, project, id, o), nil
}
