package access

import (
	"testing"

	"bulwark/storage"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	tenant, project, id := storage.ID{1}, storage.ID{2}, storage.ID{3}
	var o storage.Origin
	actors := map[string]storage.Actor{
		"nobody":    {},
		"anonymous": storage.AnonymousActor(tenant, project, id, o),
		"account":   storage.AccountActor(tenant, project, id, id, nil, o),
		"service":   storage.ServiceActor(tenant, project, id, o),
		"operator":  storage.OperatorActor(tenant, project, storage.ID{}, "console", o),
		"job":       storage.JobActor(tenant, project, "test"),
	}
	for action, allowed := range map[string][]string{
		"rows.select":      {"anonymous", "account", "service"},
		"rows.delete":      {"anonymous", "account", "service"},
		"account.signup":   {"anonymous", "account", "service"},
		"account.update":   {"account"},
		"session.end":      {"account"},
		"tenant.create":    {"operator"},
		"project.delete":   {"operator"},
		"apikey.revoke":    {"operator"},
		"schema.apply":     {"operator"},
		"audit.search":     {"operator"},
		"audit.checkpoint": {"operator", "job"},
		"key.rotate":       {"operator"},
		"key.reseal":       {"operator", "job"},
		"certificate.put":  {"job"},
		"":                 nil,
		"rows":             {"anonymous", "account", "service"},
		"rowsx.select":     nil,
		"nosuch.verb":      nil,
	} {
		for name, actor := range actors {
			want := false
			for _, a := range allowed {
				want = want || a == name
			}
			err := New().Decide(nil, actor, storage.Intent{Action: action})
			if (err == nil) != want {
				t.Errorf("%s doing %q: %v, want allowed %v", name, action, err, want)
			}
			if err != nil && storage.FaultOf(err) != storage.Denied {
				t.Errorf("%s doing %q: %v is not a denial", name, action, err)
			}
		}
	}
}
