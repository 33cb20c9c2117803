package keys

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"testing"

	"bulwark/storage"
)

// What format 1 wrote opens for ever.
func TestFormat1(t *testing.T) {
	t.Parallel()
	var v struct {
		Root    string
		Tenant  storage.ID
		Wrapped []struct {
			Project storage.ID
			Version uint32
			Wrapped string
		}
		Values []struct {
			Project                       storage.ID
			Table, Key, Plaintext, Sealed string
		}
		Blind []struct {
			Project                    storage.ID
			Table, Label, Value, Blind string
		}
		KeyFile    string `json:"key_file"`
		Shamir     json.RawMessage
		Shares     []string
		Passphrase json.RawMessage
		Typed      string
	}
	readVectors(t, "format1.json", &v)
	root := unhex(t, v.Root)
	r, s := newRing(t, root[0]), newShelf()
	for _, w := range v.Wrapped {
		sc := scopeID{v.Tenant, w.Project}
		if s.scopes[sc].wrapped == nil {
			s.scopes[sc] = shelved{map[uint32][]byte{}, 1}
		}
		s.scopes[sc].wrapped[w.Version] = unhex(t, w.Wrapped)
	}
	for _, x := range v.Values {
		place := storage.Place{Tenant: v.Tenant, Project: x.Project, Table: x.Table, Key: unhex(t, x.Key)}
		mustOpen(t, sealer(t, r, s, v.Tenant, x.Project), unhex(t, x.Sealed), place, string(unhex(t, x.Plaintext)))
	}
	for _, x := range v.Blind {
		if got := hex.EncodeToString(sealer(t, r, s, v.Tenant, x.Project).Blind(x.Table, x.Label, []byte(x.Value))); got != x.Blind {
			t.Errorf("blind %s, want %s", got, x.Blind)
		}
	}
	if _, got, err := parseKeyFile([]byte(v.KeyFile)); err != nil || !bytes.Equal(got, root) {
		t.Errorf("the key file: %v", err)
	}
	h, err := parseHeader(v.Shamir)
	if err != nil {
		t.Fatal(err)
	}
	c := CollectShares()
	for _, share := range v.Shares[1:] {
		if _, _, err := c.Offer(h, share); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := h.Open(c); err != nil || !bytes.Equal(got, root) {
		t.Errorf("the shares: %v", err)
	}
	if h, err = parseHeader(v.Passphrase); err != nil {
		t.Fatal(err)
	}
	typed := NewPassphraseSeal(func() ([]byte, error) { return []byte(v.Typed), nil }, nil)
	if got, err := h.Open(typed); err != nil || !bytes.Equal(got, root) {
		t.Errorf("the passphrase: %v", err)
	}
}

// Derivations, against another implementation's results.
func TestDerivationVectors(t *testing.T) {
	t.Parallel()
	var v struct {
		Root    string
		Derived []struct{ Label, Secret string }
		Working []struct{ Label, Key string }
		Check   struct {
			Cluster storage.ID
			Check   string
		}
		Blind []struct{ Index, Table, Label, Value, Key string }
	}
	readVectors(t, "derived.json", &v)
	root := unhex(t, v.Root)
	r := NewRing(stuck{})
	if err := r.Unseal(root); err != nil {
		t.Fatal(err)
	}
	for _, d := range v.Derived {
		want := unhex(t, d.Secret)
		if got, err := r.Derive(d.Label, len(want)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("Derive(%q) = %x, %v; want %x", d.Label, got, err, want)
		}
	}
	for _, w := range v.Working {
		if got := hex.EncodeToString(expand(root, nil, w.Label)); got != w.Key {
			t.Errorf("working key %q is %s, want %s", w.Label, got, w.Key)
		}
	}
	if got := rootCheck(v.Check.Cluster, root); got != v.Check.Check {
		t.Errorf("the root's check is %s, want %s", got, v.Check.Check)
	}
	for _, b := range v.Blind {
		blinder := newBlinder(expand(unhex(t, b.Index), nil, labelIndex))
		if got := hex.EncodeToString(blinder.Blind(b.Table, b.Label, unhex(t, b.Value))); got != b.Key {
			t.Errorf("Blind(%q, %q, %s) = %s, want %s", b.Table, b.Label, b.Value, got, b.Key)
		}
	}
}
