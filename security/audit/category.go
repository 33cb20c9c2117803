package audit

import "strings"

// A Category groups actions for people who search.
type Category string

// The categories.
const (
	Authentication Category = "authentication" // who got in, and who did not
	Accounts       Category = "accounts"       // people and what they belong to
	AccessControl  Category = "access"         // roles, permissions, policies
	Credentials    Category = "credentials"    // API keys, vault, encryption keys
	Configuration  Category = "configuration"  // settings of tenants, projects and the cluster
	Data           Category = "data"           // rows and objects
	Webhooks       Category = "webhook"        // in and out
	Privacy        Category = "privacy"        // the pipeline that strips personal data
	AuditLog       Category = "audit"          // the log itself: searches, exports, checkpoints
	System         Category = "system"         // nodes, backups, jobs
	Other          Category = "other"
)

// Categories lists every category.
func Categories() []Category {
	return []Category{Authentication, Accounts, AccessControl, Credentials, Configuration, Data, Webhooks, Privacy, AuditLog, System, Other}
}

// CategoryOf derives the category from the resource of an action ("resource.verb").
func CategoryOf(action string) Category {
	resource, _, _ := strings.Cut(action, ".")
	switch resource {
	case "auth", "session", "token", "password", "mfa", "factor", "passkey", "oidc", "otp", "recovery":
		return Authentication
	case "account", "user", "invite", "member", "identity":
		return Accounts
	case "role", "permission", "access", "policy", "rowpolicy", "grant", "assignment":
		return AccessControl
	case "apikey", "vault", "credential", "integration", "key", "keys", "seal", "cert", "ca", "secret":
		return Credentials
	case "tenant", "project", "origin", "setting", "config", "schema", "sql", "domain", "ratelimit", "limit", "disclosure", "posture":
		return Configuration
	case "row", "rows", "rest", "table", "object", "bucket", "blob", "realtime", "data", "record":
		return Data
	case "hook", "hookin", "hookout", "webhook", "delivery", "outbox":
		return Webhooks
	case "pii", "ingest", "privacy", "activity":
		return Privacy
	case "audit":
		return AuditLog
	case "node", "cluster", "operator", "backup", "snapshot", "job", "system", "storage", "function", "sandbox":
		return System
	}
	return Other
}
