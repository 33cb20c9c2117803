package account

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"bulwark/storage"
	"bulwark/storage/storagetest"
)

func TestNormalEmail(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]string{
		"ada@example.com":                      "ada@example.com",
		"  Ada@Example.COM\t":                  "ada@example.com",
		"a.b+c@sub.example.com":                "a.b+c@sub.example.com",
		"e\u0301te@example.com":                "\u00e9te@example.com",
		"root@localhost":                       "root@localhost",
		"user@b\u00fccher.example":             "user@b\u00fccher.example",
		"":                                     "",
		"ada":                                  "",
		"@example.com":                         "",
		"ada@":                                 "",
		"a@b@example.com":                      "",
		"ada@-example.com":                     "",
		"ada@example..com":                     "",
		"ada lovelace@example.com":             "",
		"Ada <ada@example.com>":                "",
		"ada@example.com\x00":                  "",
		"ada\u200b@example.com":                "",
		"ada@exa\nmple.com":                    "",
		"ada\xff@example.com":                  "",
		strings.Repeat("a", 65) + "@b.c":       "",
		"a@" + strings.Repeat("b.", 130) + "c": "",
	} {
		got, err := NormalEmail(typed)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v; want %q", typed, got, err, want)
		}
	}
}

func FuzzNormalEmail(f *testing.F) {
	for _, s := range []string{"Ada@Example.com", "\u0130@b.c", "e\u0301@x.y", "a@\u00df", "\u212a@b", "\u03a3\u0301@b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		e, err := NormalEmail(typed)
		if err != nil {
			return
		}
		if again, err := NormalEmail(e); err != nil || again != e {
			t.Errorf("%q is %q, and that is %q, %v", typed, e, again, err)
		}
		if !utf8.ValidString(e) || !norm.NFC.IsNormalString(e) || len(e) > maxEmail {
			t.Errorf("%q is %q", typed, e)
		}
	})
}

func TestCheckPassword(t *testing.T) {
	t.Parallel()
	for password, code := range map[string]string{
		"":                            "weak_password",
		"1234567":                     "weak_password",
		"\u00e4\u00e4\u00e4\u00e4":    "weak_password", // eight bytes, four characters
		"12345678":                    "",
		"        ":                    "",
		strings.Repeat("\u00e4", 128): "",
		strings.Repeat("a", 129):      "validation_failed",
	} {
		err := CheckPassword(password)
		if e, _ := err.(*storage.Error); (code == "") != (err == nil) || e != nil && e.Code != code {
			t.Errorf("%d bytes: %v, want %q", len(password), err, code)
		}
	}
}

func TestMergeMetadata(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ have, change, want string }{
		{``, ``, `{}`},
		{``, `null`, `{}`},
		{``, `{"a":{"b":1}}`, `{"a":{"b":1}}`},
		{`{"a":{"b":1},"c":2}`, `{"a":{"d":3}}`, `{"a":{"d":3},"c":2}`},
		{`{"a":1,"b":2}`, `{"a":null}`, `{"b":2}`},
		{`{}`, `[]`, ""},
		{`{}`, `"a"`, ""},
		{`{}`, `{"a":"` + strings.Repeat("x", maxMetadata) + `"}`, ""},
	} {
		var have, change []byte
		if c.have != "" {
			have = []byte(c.have)
		}
		if c.change != "" {
			change = []byte(c.change)
		}
		got, err := MergeMetadata(have, change)
		if string(got) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s with %.40s is %s, %v; want %s", c.have, c.change, got, err, c.want)
		}
	}
}

func newHasher(t *testing.T) *Hasher {
	t.Helper()
	h, err := NewHasher(bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHasher(t *testing.T) {
	t.Parallel()
	h := newHasher(t)
	var p, q Peppered
	copy(p[:], "one password of 22 byt")
	copy(q[:], "another password 22 by")
	hash, err := h.Hash(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		hash []byte
		p    Peppered
		want bool
	}{{hash, p, true}, {hash, q, false}, {nil, p, false}, {nil, Peppered{}, false}} {
		before := h.Runs()
		if got, err := h.Verify(t.Context(), c.hash, c.p); got != c.want || err != nil {
			t.Errorf("verifying: %v, %v, want %v", got, err, c.want)
		}
		if h.Runs() != before+1 {
			t.Error("bcrypt did not run once")
		}
	}
	// The hash that stands for an unknown account has the cost of a real one.
	for cost := bcrypt.MinCost; cost <= 16; cost++ {
		h, err := NewHasher(cost)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := bcrypt.Cost(h.dummy); got != cost || err != nil || len(h.dummy) != 60 {
			t.Errorf("the dummy hash has cost %d, %v, length %d", got, err, len(h.dummy))
		}
	}
	for _, cost := range []int{-1, 3, 17} {
		if _, err := NewHasher(cost); err == nil {
			t.Errorf("a cost of %d is accepted", cost)
		}
	}
}

// Those who wait too long, or find too many waiting, are told so; whoever has a turn is not disturbed.
func TestHasherIsBounded(t *testing.T) {
	t.Parallel()
	h := newHasher(t)
	for h.slots.TryAcquire(1) {
	}
	h.patient = time.Millisecond
	_, err := h.Hash(t.Context(), Peppered{})
	if storage.FaultOf(err) != storage.TooMany {
		t.Errorf("waiting too long: %v", err)
	}
	h.patient = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range maxWaiting {
		all.Go(func() { _, _ = h.Hash(ctx, Peppered{}) })
	}
	for h.waiting.Load() < maxWaiting {
		runtime.Gosched()
	}
	if _, err := h.Hash(t.Context(), Peppered{}); storage.FaultOf(err) != storage.TooMany {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	all.Wait()
	if h.waiting.Load() != 0 || h.Runs() != 0 {
		t.Errorf("%d wait, %d ran", h.waiting.Load(), h.Runs())
	}
}

// The pepper differs by tenant, and no two passwords have the same.
func TestPepper(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	other, _ := w.AddTenant(t)
	pepper := func(tenant storage.ID, password string) (p Peppered) {
		by := storage.JobActor(tenant, storage.ID{}, "test")
		err := w.DB.View(t.Context(), by, storage.Intent{Action: "credential.resolve"}, func(r storage.Reader) (err error) {
			p, err = Pepper(r, password)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	long := strings.Repeat("x", 100)
	if first := pepper(w.Tenant, long); first != pepper(w.Tenant, long) {
		t.Error("the pepper of a password changes")
	}
	seen := map[Peppered]string{}
	for _, p := range []Peppered{pepper(w.Tenant, long), pepper(other, long), pepper(w.Tenant, long+"a"), pepper(w.Tenant, "a\x00b"),
		pepper(w.Tenant, "a\x00c"), pepper(w.Tenant, "a"), pepper(w.Tenant, "A"), pepper(w.Tenant, "a ")} {
		if seen[p] != "" {
			t.Error("two passwords have one pepper")
		}
		seen[p] = "seen"
		if strings.IndexByte(string(p[:]), 0) >= 0 {
			t.Error("a peppered password holds a zero byte")
		}
	}
}

// An address names one account of a tenant, however it is typed, and any number in different tenants.
func TestCreate(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	tenant, project := w.AddTenant(t)
	create := func(by storage.Actor, email string) (a Account, err error) {
		err = w.DB.Update(t.Context(), by, storage.Intent{Action: "account.signup"}, func(tx storage.Tx) error {
			a, err = Create(tx, New{Email: email, Role: "user", Hash: []byte("hash"), Confirmed: true})
			return err
		})
		return a, err
	}
	here := storage.AnonymousActor(w.Tenant, w.Project, storage.ID{1}, storage.Origin{})
	there := storage.AnonymousActor(tenant, project, storage.ID{1}, storage.Origin{})
	a, err := create(here, "ada@example.com")
	if err != nil || !a.Assigned(w.Project) || a.Assigned(project) || a.Confirmed.IsZero() {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := create(here, "ada@example.com"); err != ErrExists {
		t.Errorf("a second account: %v", err)
	}
	b, err := create(there, "ada@example.com")
	if err != nil || b.ID == a.ID {
		t.Errorf("the same address in another tenant: %v", err)
	}
	by := storage.JobActor(w.Tenant, w.Project, "test")
	err = w.DB.View(t.Context(), by, storage.Intent{Action: "credential.resolve"}, func(r storage.Reader) error {
		got, err := ByEmail(r, "ada@example.com")
		if err != nil || got.ID != a.ID || got.Role != "user" || string(got.Hash) != "hash" || string(got.Metadata) != "{}" {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := Get(r, b.ID); !storage.IsNotFound(err) {
			t.Errorf("an account of another tenant: %v", err)
		}
		u := UserOf(&got, w.Tenant, 40)
		if u.ID != a.ID || u.AppMetadata.Level != 40 || len(u.Identities) != 1 || u.Identities[0].ID != a.ID.String() {
			t.Errorf("%+v", u)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMergeIsIdempotent(t *testing.T) {
	t.Parallel()
	value := rapid.SampledFrom([]string{"1", "null", `"x"`, `{"y":null}`, "[]"})
	object := rapid.Custom(func(t *rapid.T) string {
		var parts []string
		for name, v := range rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c"}), value).Draw(t, "members") {
			parts = append(parts, `"`+name+`":`+v)
		}
		return "{" + strings.Join(parts, ",") + "}"
	})
	rapid.Check(t, func(t *rapid.T) {
		have, change := object.Draw(t, "have"), object.Draw(t, "change")
		once, err := MergeMetadata([]byte(have), []byte(change))
		if err != nil {
			t.Fatal(err)
		}
		twice, err := MergeMetadata(once, []byte(change))
		if err != nil || string(once) != string(twice) {
			t.Fatalf("%s, %s: %s then %s, %v", have, change, once, twice, err)
		}
	})
}
