package node

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"reflect"
	"testing"

	"bulwark/security/apikey"
	"bulwark/security/rowpolicy"
	"bulwark/security/tenant"
	"bulwark/storage"
	"bulwark/storage/table"
)

// TestDemoSchema holds that the demo is what its SQL says.
func TestDemoSchema(t *testing.T) {
	t.Parallel()
	want, _, err := rowpolicy.NewParser().Compile(t.Context(), &table.Schema{}, demoSQL, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	got, err := demoSchema(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*table.Schema{want, got} { // what is drawn or counted differs
		s.Version = 0
		s.Tables[0].Space, s.Tables[0].Created = "", [16]byte{}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the demo's schema is\n%s\nand its SQL says\n%s", rowpolicy.Dump(got), rowpolicy.Dump(want))
	}
}

// TestDemoResumes stops making the demo after each of its entries, and finds it whole at the next start.
func TestDemoResumes(t *testing.T) {
	t.Parallel()
	whole := 0
	for stop := 1; whole == 0; stop++ {
		cfg := testConfig(t, filepath.Join(t.TempDir(), "data"))
		n := open(t, cfg)
		cut := &cutStore{Store: n.store, left: stop}
		if err := cut.make(t, n); err == nil {
			whole = stop
		}
		c := newCaller(t, n) // makes what there is not yet
		c.do(200, "POST", "/auth/v1/signup", "", map[string]string{"email": "ann@example.com", "password": "a long password"}, nil)
		tenants, err := n.parts.directory.Tenants(t.Context(), demoOperator(storage.System, storage.ID{}))
		if err != nil || len(tenants) != 1 {
			t.Errorf("stopped after entry %d: the tenants are %v, %v", stop-1, tenants, err)
		}
	}
	if whole < 6 {
		t.Errorf("the demo took %d entries: too few for what it makes", whole-1)
	}
	// A tenant that somebody made by that name is no demo.
	cfg := testConfig(t, filepath.Join(t.TempDir(), "data"))
	n := open(t, cfg)
	if _, err := n.parts.directory.CreateTenant(t.Context(), demoOperator(storage.System, storage.ID{}), demoName); err != nil {
		t.Fatal(err)
	}
	if d, err := n.Demo(t.Context()); d != nil || err != nil {
		t.Errorf("beside somebody's tenant: %v, %v", d, err)
	}
}

var errCut = errors.New("cut off")

// A cutStore refuses every change from the left-th on, as a crash would.
type cutStore struct {
	storage.Store
	left int
}

func (c *cutStore) Update(ctx context.Context, by storage.Actor, to storage.Intent, fn func(storage.Tx) error) error {
	if c.left--; c.left <= 0 {
		return errCut
	}
	return c.Store.Update(ctx, by, to, fn)
}

// make makes the demo over a store that is cut.
func (c *cutStore) make(t *testing.T, n *Node) error {
	t.Helper()
	directory, err := tenant.New(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	apikeys, err := apikey.New(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := demoMaker{&parts{directory: directory, keys: apikeys}, c, rand.Reader, storage.NewTable[demoRecord](demoName, storage.TenantScope)}
	rec, err := m.find(t.Context())
	if err == nil && rec.Ref == "" {
		_, err = m.make(t.Context())
	}
	return err
}
