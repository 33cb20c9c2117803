package account

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"bulwark/storage"
)

// A User is an account as clients of auth/v1 see it.
type User struct {
	ID             storage.ID     `json:"id"`
	Aud            string         `json:"aud"`
	Role           string         `json:"role"`
	Email          string         `json:"email"`
	EmailConfirmed *time.Time     `json:"email_confirmed_at,omitempty"`
	Phone          string         `json:"phone"`
	Confirmed      *time.Time     `json:"confirmed_at,omitempty"`
	LastSignIn     *time.Time     `json:"last_sign_in_at,omitempty"`
	AppMetadata    AppMetadata    `json:"app_metadata"`
	UserMetadata   jsontext.Value `json:"user_metadata"`
	Identities     []Identity     `json:"identities"`
	Created        time.Time      `json:"created_at"`
	Updated        time.Time      `json:"updated_at"`
	Anonymous      bool           `json:"is_anonymous"`
}

// AppMetadata is what the server says about an account; the person cannot write it.
type AppMetadata struct {
	Provider  string     `json:"provider"`
	Providers []string   `json:"providers"`
	Tenant    storage.ID `json:"tenant"`
	Role      string     `json:"role"`
	Level     int        `json:"level"`
}

// An Identity is one way in which an account can sign in.
type Identity struct {
	IdentityID storage.ID   `json:"identity_id"`
	ID         string       `json:"id"`
	UserID     storage.ID   `json:"user_id"`
	Data       IdentityData `json:"identity_data"`
	Provider   string       `json:"provider"`
	LastSignIn *time.Time   `json:"last_sign_in_at,omitempty"`
	Created    time.Time    `json:"created_at"`
	Updated    time.Time    `json:"updated_at"`
	Email      string       `json:"email"`
}

// IdentityData is what the provider of an identity said.
type IdentityData struct {
	Email         string `json:"email"`
	EmailVerified bool   `json:"email_verified"`
	PhoneVerified bool   `json:"phone_verified"`
	Sub           string `json:"sub"`
}

// UserOf returns the account of a tenant as clients see it. level is that of its role.
func UserOf(a *Account, tenant storage.ID, level int) User {
	u := User{
		ID: a.ID, Aud: "authenticated", Role: "authenticated", Email: a.Email,
		EmailConfirmed: at(a.Confirmed), Confirmed: at(a.Confirmed), LastSignIn: at(a.LastSignIn),
		AppMetadata:  AppMetadata{Provider: "email", Providers: []string{"email"}, Tenant: tenant, Role: a.Role, Level: level},
		UserMetadata: a.Metadata, Created: a.Created.UTC(), Updated: a.Updated.UTC(),
		Identities: []Identity{{
			IdentityID: a.ID, ID: a.ID.String(), UserID: a.ID, Provider: "email", Email: a.Email,
			Data:       IdentityData{Email: a.Email, EmailVerified: !a.Confirmed.IsZero(), Sub: a.ID.String()},
			LastSignIn: at(a.LastSignIn), Created: a.Created.UTC(), Updated: a.Created.UTC(),
		}},
	}
	if len(u.UserMetadata) == 0 {
		u.UserMetadata = jsontext.Value("{}")
	}
	return u
}

func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
