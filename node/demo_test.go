package node

import (
	"crypto/rand"
	"reflect"
	"testing"

	"bulwark/security/rowpolicy"
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
