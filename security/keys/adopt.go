package keys

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"bulwark/storage"
)

// Check is what a Header says of a root key: enough to tell it from another.
func Check(cluster storage.ID, root []byte) string { return rootCheck(cluster, root) }

// ReadKeyFile returns the root key in a key file of a cluster. dir is a data folder that it must lie outside of. The caller
// clears it.
func ReadKeyFile(dir, path string, cluster storage.ID) ([]byte, error) {
	seal, err := NewFileSeal(dir, path)
	if err != nil {
		return nil, err
	}
	return seal.Open(cluster, nil)
}

// Adopt writes the header of a data folder whose root key is in a key file that is there already.
func Adopt(dir, path string, cluster storage.ID, root []byte) error {
	if err := headerless(dir); err != nil {
		return err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("naming the key file: %w", err)
	}
	if _, err := os.Stat(abs); err != nil {
		return err
	}
	params, err := json.Marshal(fileParams{Path: abs})
	if err != nil {
		return err
	}
	h := &Header{Format: headerFormat, Kind: File, Cluster: cluster, Check: rootCheck(cluster, root), Params: params}
	if h.Checksum, err = h.sum(); err == nil {
		err = h.write(filepath.Join(dir, HeaderFile))
	}
	if err != nil {
		return fmt.Errorf("writing the seal's header: %w", err)
	}
	return nil
}
