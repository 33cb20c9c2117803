package audit

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"bulwark/storage"
)

// A Filter chooses events by their fields; all that are set must hold. The zero Filter chooses every event.
type Filter struct {
	From      time.Time `json:"from,omitzero" doc:"no event before it"`
	To        time.Time `json:"to,omitzero" doc:"no event at it or after it"`
	Actor     string    `json:"actor,omitempty" doc:"the actor's id, or the name of a job or operator"`
	ActorKind string    `json:"actorkind,omitempty" doc:"anonymous, account, service, operator or job"`
	Action    string    `json:"action,omitempty" doc:"apikey.revoke, for example, or apikey.* for all actions of a resource"`
	Category  string    `json:"category,omitempty" doc:"authentication, configuration, data, webhook and so on"`
	Outcome   string    `json:"outcome,omitempty" doc:"ok or denied"`
	Project   string    `json:"project,omitempty" doc:"a project's id"`
	Object    string    `json:"object,omitempty" doc:"what it was done to"`
	Address   string    `json:"addr,omitempty" doc:"the IP address that the request came from"`
	Session   string    `json:"session,omitempty" doc:"a session's id"`
	Request   string    `json:"request,omitempty" doc:"a request's id"`
}

// Match reports whether f chooses r.
func (f *Filter) Match(r *Record) bool {
	if !f.From.IsZero() && r.Time.Before(f.From) || !f.To.IsZero() && !r.Time.Before(f.To) {
		return false
	}
	if resource, ok := strings.CutSuffix(f.Action, "*"); ok {
		if !strings.HasPrefix(r.Action, resource) {
			return false
		}
	} else if !same(f.Action, r.Action) {
		return false
	}
	return (f.Actor == "" || f.Actor == idText(r.Actor.ID) || f.Actor == r.Actor.Name) &&
		same(f.ActorKind, r.Actor.Kind) &&
		same(f.Category, string(CategoryOf(r.Action))) &&
		same(f.Outcome, r.Outcome) &&
		same(f.Project, idText(r.Project)) &&
		same(f.Object, r.Object) &&
		(f.Address == "" || r.Actor.Addr.IsValid() && f.Address == r.Actor.Addr.String()) &&
		same(f.Session, idText(r.Actor.Session)) &&
		same(f.Request, r.Request)
}

func same(want, is string) bool { return want == "" || want == is }

func idText(id storage.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// A Query is one search of a tenant's log.
type Query struct {
	Filter
	Text        string   `json:"text,omitempty" doc:"words, field:word, \"phrases\", +must, -must not, ranges; empty finds everything"`
	Limit       int      `json:"limit,omitzero" doc:"events on a page: 50 if not given, at most 500"`
	After       string   `json:"after,omitempty" doc:"the next of the page before"`
	OldestFirst bool     `json:"oldest_first,omitzero" doc:"otherwise the newest come first"`
	Facets      []string `json:"facets,omitempty" doc:"fields whose most frequent values are counted over all that is found; costs time"`
}

// A Page is one page of what a Query found.
type Page struct {
	Events  []Found            `json:"events"`
	Next    string             `json:"next,omitempty"`     // of the page after; "" on the last one
	Indexed uint64             `json:"indexed"`            // the search looked at this many events: all that there were when it began
	Total   uint64             `json:"total"`              // events that the query finds, on all pages
	AtLeast bool               `json:"at_least,omitempty"` // Total and Facets are lower bounds: counting all would have cost too much
	Facets  map[string][]Facet `json:"facets,omitempty"`
}

// A Found is one event of a Page.
type Found struct {
	Position uint64          `json:"position"`
	Category Category        `json:"category"`
	Event    json.RawMessage `json:"event"` // the canonical text
}

// A Facet says how many of the events found have a value.
type Facet struct {
	Value string `json:"value"`
	Count int    `json:"count"`
}

// A Searcher finds events; package auditsearch has it. A Query that cannot be read is an *storage.Error of kind BadInput.
type Searcher interface {
	Search(ctx context.Context, by storage.Actor, q Query) (*Page, error)
}
