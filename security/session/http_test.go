package session_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"bulwark/security/tenant"
	"bulwark/storage"
)

const (
	email    = "ada@example.com"
	password = "correct horse battery"
)

func TestSignUpSignInAndOut(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	m := p.mark(t)
	r := p.do(t, "POST", "/auth/v1/signup", `{"email":"  Ada@Example.COM ","password":"`+password+`","data":{"n":1},"gotrue_meta_security":{}}`)
	p.expectActs(t, m, "account.signup ok")
	checkSession(t, p, r)
	user := r.body["user"].(map[string]any)
	if user["email"] != email {
		t.Errorf("the address is %v", user["email"])
	}
	if data, _ := json.Marshal(user["user_metadata"]); string(data) != `{"n":1}` {
		t.Errorf("user_metadata is %s", data)
	}

	m = p.mark(t)
	r = p.signIn(t, strings.ToUpper(email), password)
	p.expectActs(t, m, "session.create ok")
	checkSession(t, p, r)
	access := r.str("access_token")

	m = p.mark(t)
	got := p.do(t, "GET", "/auth/v1/user", nil, bearer(access))
	if got.status != 200 || got.body["id"] != user["id"] || got.body["email"] != email {
		t.Errorf("GET /user: %d %s", got.status, got.text)
	}
	p.expectActs(t, m)

	m = p.mark(t)
	got = p.do(t, "PUT", "/auth/v1/user", `{"data":{"n":null,"o":[2]}}`, bearer(access))
	if data, _ := json.Marshal(got.body["user_metadata"]); got.status != 200 || string(data) != `{"o":[2]}` {
		t.Errorf("PUT /user: %d %s", got.status, got.text)
	}
	p.expectActs(t, m, "account.update ok")

	m = p.mark(t)
	next := p.refresh(t, r.str("refresh_token"))
	p.expectActs(t, m, "session.refresh ok")
	checkSession(t, p, next)

	m = p.mark(t)
	got = p.do(t, "POST", "/auth/v1/logout?scope=local", nil, bearer(access))
	if got.status != http.StatusNoContent || got.text != "" {
		t.Errorf("logout: %d %q", got.status, got.text)
	}
	p.expectActs(t, m, "session.end ok")
	for _, token := range []string{access, next.str("access_token")} {
		p.do(t, "GET", "/auth/v1/user", nil, bearer(token)).refused(t, 403, "session_not_found")
		p.do(t, "PUT", "/auth/v1/user", `{"data":{}}`, bearer(token)).refused(t, 403, "session_not_found")
		p.do(t, "POST", "/auth/v1/logout", nil, bearer(token)).refused(t, 403, "session_not_found")
		// Other surfaces read no account: for them it is Caller that looks.
		if r := p.do(t, "GET", "/who", nil, bearer(token)); r.status != 401 {
			t.Errorf("a token without a session is %s", r.text)
		}
	}
	p.refresh(t, next.str("refresh_token")).refused(t, 400, "refresh_token_not_found")
}

// checkSession checks the shape that clients need: wire, section 2.2.
func checkSession(t *testing.T, p *project, r reply) {
	t.Helper()
	if r.status != 200 {
		t.Fatalf("no session: %d %s", r.status, r.text)
	}
	now := float64(p.clock.Now().Unix())
	if r.body["token_type"] != "bearer" || r.body["expires_in"] != 3600.0 || r.body["expires_at"] != now+3600 {
		t.Errorf("session: %s", r.text)
	}
	user := r.body["user"].(map[string]any)
	for _, name := range []string{"id", "aud", "role", "email", "phone", "app_metadata", "user_metadata", "identities", "created_at", "updated_at", "is_anonymous"} {
		if user[name] == nil {
			t.Errorf("the user has no %s", name)
		}
	}
	app := user["app_metadata"].(map[string]any)
	if app["provider"] != "email" || app["tenant"] != p.tenant.String() || app["role"] != "user" || app["level"] != 40.0 {
		t.Errorf("app_metadata: %v", app)
	}
	claims := payload(t, r.str("access_token"))
	want := map[string]any{
		"iss": "https://bulwark.test/p/" + p.Ref + "/auth/v1", "sub": user["id"], "aud": "authenticated", "exp": now + 3600, "iat": claims["iat"],
		"email": user["email"], "phone": "", "app_metadata": app, "user_metadata": user["user_metadata"], "role": "authenticated",
		"aal": "aal1", "amr": claims["amr"], "session_id": claims["session_id"], "is_anonymous": false,
	}
	a, _ := json.Marshal(claims)
	b, _ := json.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("claims are %s, want %s", a, b)
	}
	if amr := claims["amr"].([]any); len(amr) != 1 || amr[0].(map[string]any)["method"] != "password" {
		t.Errorf("amr is %v", amr)
	}
}

func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a JWT")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLogoutScopes(t *testing.T) {
	t.Parallel()
	for scope, alive := range map[string][]bool{
		"":              {false, false, false},
		"?scope=global": {false, false, false},
		"?scope=local":  {false, true, true},
		"?scope=others": {true, false, false},
	} {
		t.Run("scope"+scope, func(t *testing.T) {
			t.Parallel()
			p := newProject(t)
			tokens := []string{p.signUp(t, email, password).str("access_token")}
			other := p.signUp(t, "bob@example.com", password).str("access_token")
			for range 2 {
				tokens = append(tokens, p.signIn(t, email, password).str("access_token"))
			}
			m := p.mark(t)
			if r := p.do(t, "POST", "/auth/v1/logout"+scope, nil, bearer(tokens[0])); r.status != 204 {
				t.Fatalf("logout: %d %s", r.status, r.text)
			}
			p.expectActs(t, m, "session.end ok")
			for i, want := range alive {
				if r := p.do(t, "GET", "/auth/v1/user", nil, bearer(tokens[i])); (r.status == 200) != want {
					t.Errorf("session %d answers %d, want alive %v", i, r.status, want)
				}
			}
			if r := p.do(t, "GET", "/auth/v1/user", nil, bearer(other)); r.status != 200 {
				t.Errorf("somebody else's session ended: %d", r.status)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	token := p.signUp(t, email, password).str("access_token")
	long := strings.Repeat("ä", 129)
	deep := func(n int) string { return `{"data":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	const unseen = "canary9f3c@example.com"
	type want struct {
		status        int
		code, message string
	}
	for name, c := range map[string]struct {
		method, path string
		body         any
		headers      []string
		want         want
		acts         []string
	}{
		"wrong password": {"POST", "/token?grant_type=password", map[string]string{"email": email, "password": "canary-wrong"}, nil,
			want{400, "invalid_credentials", "Invalid login credentials"}, []string{"session.create denied invalid_credentials"}},
		"unknown account": {"POST", "/token?grant_type=password", map[string]string{"email": unseen, "password": "canary-wrong"}, nil,
			want{400, "invalid_credentials", "Invalid login credentials"}, []string{"session.create denied invalid_credentials"}},
		"no address at all": {"POST", "/token?grant_type=password", map[string]string{"email": "canary", "password": "canary-wrong"}, nil,
			want{400, "invalid_credentials", "Invalid login credentials"}, []string{"session.create denied invalid_credentials"}},
		"missing address": {"POST", "/token?grant_type=password", `{"password":"canary-wrong"}`, nil,
			want{400, "validation_failed", "missing email or phone"}, nil},
		"unknown grant": {"POST", "/token?grant_type=canary", `{}`, nil, want{400, "invalid_credentials", "unsupported_grant_type"}, nil},
		"exists": {"POST", "/signup", map[string]string{"email": " ADA@example.com", "password": "canary-secret"}, nil,
			want{422, "user_already_exists", "User already registered"}, nil},
		"short password": {"POST", "/signup", map[string]string{"email": unseen, "password": "canary9"}, nil,
			want{422, "weak_password", "Password should be at least 8 characters."}, nil},
		"long password": {"POST", "/signup", map[string]string{"email": unseen, "password": long}, nil,
			want{400, "validation_failed", "Password cannot be longer than 128 characters"}, nil},
		"no password": {"POST", "/signup", map[string]string{"email": unseen}, nil, want{400, "validation_failed", "Signup requires a valid password"}, nil},
		"bad address": {"POST", "/signup", map[string]string{"email": "canary@", "password": password}, nil,
			want{400, "validation_failed", "Unable to validate email address: invalid format"}, nil},
		"anonymous": {"POST", "/signup", `{"data":{}}`, nil, want{422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled"}, nil},
		"phone":     {"POST", "/signup", `{"phone":"+4912345","password":"canary-secret"}`, nil, want{400, "phone_provider_disabled", "Phone signups are disabled"}, nil},
		"data is no object": {"POST", "/signup", map[string]any{"email": unseen, "password": password, "data": "canary"}, nil,
			want{400, "validation_failed", "data must be a JSON object"}, nil},
		"data is large": {"POST", "/signup", map[string]any{"email": unseen, "password": password, "data": map[string]string{"canary": strings.Repeat("x", 9000)}}, nil,
			want{400, "validation_failed", ""}, nil},
		"not JSON":        {"POST", "/signup", `{"email":"canary`, nil, want{400, "bad_json", ""}, nil},
		"a name twice":    {"POST", "/signup", `{"email":"canary@a.b","email":"canary@a.c"}`, nil, want{400, "bad_json", ""}, nil},
		"not UTF-8":       {"POST", "/signup", "{\"email\":\"canary\xff\"}", nil, want{400, "bad_json", ""}, nil},
		"deep":            {"POST", "/signup", deep(32), nil, want{400, "bad_json", "The body is nested deeper than 32 levels: send it flatter"}, nil},
		"very deep":       {"POST", "/signup", deep(10000), nil, want{400, "bad_json", "The body is nested deeper than 32 levels: send it flatter"}, nil},
		"not too deep":    {"POST", "/signup", deep(31), nil, want{422, "anonymous_provider_disabled", ""}, nil},
		"an array":        {"POST", "/signup", `["canary"]`, nil, want{400, "bad_json", ""}, nil},
		"empty":           {"POST", "/signup", nil, nil, want{400, "bad_json", ""}, nil},
		"large":           {"POST", "/signup", `{"email":"` + strings.Repeat("canary", 1<<18) + `"}`, nil, want{413, "request_too_large", ""}, nil},
		"no bearer":       {"GET", "/user", nil, nil, want{401, "no_authorization", "This endpoint requires a valid Bearer token"}, nil},
		"a key as bearer": {"GET", "/user", nil, []string{bearer(p.public)}, want{401, "no_authorization", "This endpoint requires a valid Bearer token"}, nil},
		"no JWT":          {"GET", "/user", nil, []string{bearer("canary")}, want{403, "bad_jwt", ""}, nil},
		"no key":          {"GET", "/user", nil, []string{"apikey: "}, want{401, "no_api_key", "No API key found in request"}, nil},
		"unknown key":     {"GET", "/user", nil, []string{"apikey: canary"}, want{401, "invalid_api_key", "Invalid API key"}, nil},
		"same password":   {"PUT", "/user", map[string]string{"password": password}, []string{bearer(token)}, want{422, "same_password", "New password should be different from the old password."}, nil},
		"weak new password": {"PUT", "/user", map[string]string{"password": "canary9"}, []string{bearer(token)},
			want{422, "weak_password", "Password should be at least 8 characters."}, nil},
		"wrong current password": {"PUT", "/user", map[string]string{"password": "canary-new-one", "current_password": "canary-wrong"}, []string{bearer(token)},
			want{400, "invalid_credentials", "Invalid login credentials"}, []string{"account.update denied invalid_credentials"}},
		"other address":    {"PUT", "/user", map[string]string{"email": unseen}, []string{bearer(token)}, want{400, "validation_failed", ""}, nil},
		"unknown scope":    {"POST", "/logout?scope=canary", nil, []string{bearer(token)}, want{400, "validation_failed", ""}, nil},
		"not offered":      {"POST", "/recover", map[string]string{"email": unseen}, nil, want{404, "not_found", ""}, nil},
		"method":           {"DELETE", "/user", nil, nil, want{405, "method_not_allowed", ""}, nil},
		"no refresh token": {"POST", "/token?grant_type=refresh_token", `{}`, nil, want{400, "validation_failed", ""}, nil},
		"malformed refresh token": {"POST", "/token?grant_type=refresh_token", `{"refresh_token":"canary"}`, nil,
			want{400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := p.mark(t)
			r := p.do(t, c.method, "/auth/v1"+c.path, c.body, c.headers...)
			r.refused(t, c.want.status, c.want.code)
			if c.want.message != "" && r.str("message") != c.want.message {
				t.Errorf("message is %q, want %q", r.str("message"), c.want.message)
			}
			// Nothing that was sent comes back.
			if strings.Contains(strings.ToLower(r.text), "canary") || strings.Contains(r.text, email) || strings.Contains(r.text, password) {
				t.Errorf("the refusal quotes what was sent: %s", r.text)
			}
			if r.str("code") == "weak_password" && r.body["weak_password"].(map[string]any)["reasons"].([]any)[0] != "length" {
				t.Errorf("no reason: %s", r.text)
			}
			p.expectActs(t, m, c.acts...)
			for _, e := range p.Events(t, p.tenant, m) {
				if b, _ := json.Marshal(e); strings.Contains(string(b), "canary") || strings.Contains(string(b), email) {
					t.Errorf("the audit event quotes what was sent: %s", b)
				}
			}
		})
	}
	if p.log.Len() > 0 {
		t.Errorf("the log says %s", p.log)
	}
}

// An unknown account, and one of another project, cost as many runs of bcrypt as a known one.
func TestUnknownAccountCostsTheSame(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	other := p.project(t, "other", tenant.Settings{SignUp: true, AutoConfirm: true})
	p.signUp(t, email, password)
	for name, try := range map[string]func() reply{
		"right":         func() reply { return p.signIn(t, email, password) },
		"wrong":         func() reply { return p.signIn(t, email, "something else") },
		"unknown":       func() reply { return p.signIn(t, "nobody@example.com", password) },
		"not one":       func() reply { return p.signIn(t, "@", password) },
		"other project": func() reply { return other.signIn(t, email, password) },
	} {
		before := p.hasher.Runs()
		r := try()
		if n := p.hasher.Runs() - before; n != 1 {
			t.Errorf("%s: bcrypt ran %d times", name, n)
		}
		if name == "right" {
			continue
		}
		r.refused(t, 400, "invalid_credentials")
	}
}

func TestSignUpClosed(t *testing.T) {
	t.Parallel()
	p := newWorld(t).project(t, "app", tenant.Settings{})
	m, before := p.mark(t), p.hasher.Runs()
	r := p.do(t, "POST", "/auth/v1/signup", map[string]string{"email": email, "password": password})
	r.refused(t, 422, "signup_disabled")
	if r.str("message") != "Signups not allowed for this instance" {
		t.Errorf("message is %q", r.str("message"))
	}
	p.expectActs(t, m, "account.signup denied signup_disabled")
	if p.hasher.Runs() != before {
		t.Error("a closed sign-up ran bcrypt")
	}
	if s := p.do(t, "GET", "/auth/v1/settings", nil); s.body["disable_signup"] != true || s.body["mailer_autoconfirm"] != false {
		t.Errorf("settings: %s", s.text)
	}
}

// Where addresses must be confirmed, signing up starts no session, and an address that is taken looks like one that is free.
func TestSignUpUnconfirmed(t *testing.T) {
	t.Parallel()
	p := newWorld(t).project(t, "app", tenant.Settings{SignUp: true})
	body := map[string]string{"email": email, "password": password}
	m := p.mark(t)
	first := p.do(t, "POST", "/auth/v1/signup", body)
	p.expectActs(t, m, "account.signup ok")
	m = p.mark(t)
	second := p.do(t, "POST", "/auth/v1/signup", body)
	p.expectActs(t, m, "account.signup ok")
	for _, r := range []reply{first, second} {
		if r.status != 200 || r.body["access_token"] != nil || r.body["email"] != email || r.body["email_confirmed_at"] != nil {
			t.Errorf("sign-up: %d %s", r.status, r.text)
		}
	}
	if first.body["id"] == second.body["id"] {
		t.Error("the second sign-up shows the account of the first")
	}
	if ids := second.body["identities"].([]any); len(ids) != 0 {
		t.Errorf("the faked user has identities: %v", ids)
	}
	m = p.mark(t)
	p.signIn(t, email, password).refused(t, 400, "email_not_confirmed")
	p.expectActs(t, m, "session.create denied email_not_confirmed")
}

func TestNewPassword(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	mine, other := p.signUp(t, email, password).str("access_token"), p.signIn(t, email, password).str("access_token")
	m := p.mark(t)
	r := p.do(t, "PUT", "/auth/v1/user", map[string]string{"password": "a new pass phrase", "current_password": password}, bearer(mine))
	if r.status != 200 || r.body["email"] != email {
		t.Fatalf("PUT /user: %d %s", r.status, r.text)
	}
	p.expectActs(t, m, "account.update ok")
	p.do(t, "GET", "/auth/v1/user", nil, bearer(other)).refused(t, 403, "session_not_found")
	if r := p.do(t, "GET", "/auth/v1/user", nil, bearer(mine)); r.status != 200 {
		t.Errorf("the session that changed the password ended: %s", r.text)
	}
	p.signIn(t, email, password).refused(t, 400, "invalid_credentials")
	if r := p.signIn(t, email, "a new pass phrase"); r.status != 200 {
		t.Errorf("the new password does not work: %s", r.text)
	}
}

// Passwords are compared as typed, beyond the 72 bytes that bcrypt reads.
func TestPasswordsAreNotCut(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	long := strings.Repeat("0123456789", 12)
	p.signUp(t, email, long+"a")
	p.signIn(t, email, long+"b").refused(t, 400, "invalid_credentials")
	p.signIn(t, email, long).refused(t, 400, "invalid_credentials")
	p.signIn(t, email, " "+long+"a").refused(t, 400, "invalid_credentials")
	if r := p.signIn(t, email, long+"a"); r.status != 200 {
		t.Errorf("the right password does not work: %s", r.text)
	}
}

func TestOpenEndpoints(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	r := p.do(t, "GET", "/auth/v1/health", nil, "apikey: ")
	if r.status != 200 || r.body["name"] != "GoTrue" || r.body["version"] != "test" {
		t.Errorf("health: %d %s", r.status, r.text)
	}
	r = p.do(t, "GET", "/auth/v1/.well-known/jwks.json", nil, "apikey: ")
	if r.status != 200 || r.header.Get("Cache-Control") != "public, max-age=600" {
		t.Fatalf("jwks: %d %s", r.status, r.text)
	}
	keys := r.body["keys"].([]any)
	key := keys[0].(map[string]any)
	names := []string{}
	for name := range key {
		names = append(names, name)
	}
	slices.Sort(names)
	// No "d": that would be the private key.
	if len(keys) != 1 || !slices.Equal(names, []string{"alg", "crv", "kid", "kty", "use", "x", "y"}) || key["alg"] != "ES256" {
		t.Errorf("jwks: %s", r.text)
	}
	unknown := &project{world: p.world, public: p.public}
	for _, ref := range []string{strings.Repeat("a", 20), "x", strings.Repeat("A", 20)} {
		unknown.Ref = ref
		for _, path := range []string{"/auth/v1/health", "/auth/v1/.well-known/jwks.json", "/auth/v1/settings"} {
			unknown.do(t, "GET", path, nil).refused(t, 404, "project_not_found")
		}
	}
}

// A project that was deleted answers nothing, from memory or not.
func TestDeletedProject(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	token := p.signUp(t, email, password).str("access_token")
	// Another node, which has the ref in its memory and does not hear of the deletion.
	elsewhere, err := tenant.New(p.DB, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	if err := elsewhere.DeleteProject(t.Context(), p.by); err != nil {
		t.Fatal(err)
	}
	p.do(t, "GET", "/auth/v1/user", nil, bearer(token)).refused(t, 401, "invalid_api_key")
	p.do(t, "GET", "/auth/v1/.well-known/jwks.json", nil).refused(t, 404, "project_not_found")
	p.signIn(t, email, password).refused(t, 401, "invalid_api_key")
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.Ring.Seal()
	r := p.do(t, "GET", "/auth/v1/settings", nil)
	r.refused(t, 503, "sealed")
	if r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestCaller(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	other := p.project(t, "other", tenant.Settings{})
	token := p.signUp(t, email, password).str("access_token")
	_, operator, err := p.keys.Create(t.Context(), console(storage.System, storage.ID{}), "operator", "ci")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		query   string
		headers []string
		want    string // "" is refused
	}{
		"publishable":              {"", nil, "anonymous anon"},
		"secret":                   {"", []string{"apikey: " + p.secret}, "service service_role"},
		"in the query":             {"?apikey=" + p.secret, []string{"apikey: "}, "service service_role"},
		"as bearer":                {"", []string{"apikey: ", bearer(p.secret)}, "service service_role"},
		"key as key and bearer":    {"", []string{bearer(p.public)}, "anonymous anon"},
		"person":                   {"", []string{bearer(token)}, "account authenticated"},
		"person with a secret key": {"", []string{"apikey: " + p.secret, bearer(token)}, "account authenticated"},
		"person without a key":     {"", []string{"apikey: ", bearer(token)}, ""},
		"nothing":                  {"", []string{"apikey: "}, ""},
		"secret key in a browser":  {"", []string{"apikey: " + p.secret, "User-Agent: Mozilla/5.0"}, ""},
		"publishable in a browser": {"", []string{"User-Agent: Mozilla/5.0"}, "anonymous anon"},
		"key of another project":   {"", []string{"apikey: " + other.public}, ""},
		"operator token":           {"", []string{"apikey: " + operator}, ""},
		"typing error":             {"", []string{"apikey: " + p.public[:len(p.public)-1] + "!"}, ""},
	} {
		m := p.mark(t)
		r := p.do(t, "GET", "/who"+c.query, nil, c.headers...)
		if c.want == "" && r.status != 401 || c.want != "" && r.text != c.want {
			t.Errorf("%s: %d %q, want %q", name, r.status, r.text, c.want)
		}
		p.expectActs(t, m)
	}
}

func TestRevokedKeyStops(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	token := p.signUp(t, email, password).str("access_token")
	if r := p.do(t, "GET", "/auth/v1/user", nil, bearer(token)); r.status != 200 {
		t.Fatal(r.text)
	}
	if err := p.keys.Revoke(t.Context(), p.by, p.publicKey.ID); err != nil {
		t.Fatal(err)
	}
	p.do(t, "GET", "/auth/v1/user", nil, bearer(token)).refused(t, 401, "invalid_api_key")
}

func TestRotatedKeyOverlaps(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	old := p.public
	_, now, err := p.keys.Rotate(t.Context(), p.by, p.publicKey.ID, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	works := func(key string) bool { return p.do(t, "GET", "/who", nil, "apikey: "+key).status == 200 }
	if !works(old) || !works(now) {
		t.Error("a key does not work during the overlap")
	}
	p.clock.Advance(time.Minute)
	if works(old) || !works(now) {
		t.Error("after the overlap the old key works, or the new one does not")
	}
}

// A header may hold any bytes; what a session remembers of it must not make the session unreadable.
func TestStrangeUserAgent(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.signUp(t, email, password)
	for _, agent := range []string{"\xff\xfe", strings.Repeat("a", 199) + "\u00e4", strings.Repeat("\u00e4", 5000), ""} {
		r := p.do(t, "POST", "/auth/v1/token?grant_type=password", map[string]string{"email": email, "password": password}, "User-Agent: "+agent)
		if r.status != 200 {
			t.Fatalf("%q: %d %s", agent, r.status, r.text)
		}
		if r := p.do(t, "POST", "/auth/v1/logout?scope=others", nil, bearer(r.str("access_token"))); r.status != 204 {
			t.Errorf("%.20q: %d %s", agent, r.status, r.text)
		}
	}
}
