package cluster

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// newRaftLogger is l as raft wants it. What raft calls information is for those who debug it.
func newRaftLogger(l *slog.Logger) hclog.Logger {
	h := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard})
	h.RegisterSink(slogSink{l})
	return h
}

// electionBegins is what raft warns of at every start of a lone node, and whenever a leader is gone: what comes of it is
// worth a warning, that it begins is not.
const electionBegins = "heartbeat timeout reached, starting election"

type slogSink struct{ to *slog.Logger }

func (s slogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn, hclog.Error:
		// raft reports what it recovers from as errors, too: an unreachable node, a lost election.
		to = slog.LevelWarn
	}
	if msg == electionBegins {
		to = slog.LevelInfo
	}
	if !s.to.Enabled(context.Background(), to) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = f[1:]
		}
	}
	s.to.Log(context.Background(), to, "raft: "+msg, args...)
}
