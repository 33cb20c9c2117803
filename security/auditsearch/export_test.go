package auditsearch

import (
	"context"
	"time"

	"bulwark/storage"
)

// Round is one round of Follow.
func (x *Index) Round(ctx context.Context, e storage.Engine) error {
	return x.round(ctx, e, map[storage.ID]time.Time{})
}
