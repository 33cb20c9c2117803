package web

import (
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"bulwark/storage"
)

// metrics has label values from fixed sets only: a surface, a known method, a class of status.
type metrics struct {
	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	panics      prometheus.Counter
	limited     prometheus.Counter
	connections prometheus.Gauge
}

func newMetrics(reg *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulwark_http_requests_total", Help: "Requests by surface, method and class of status; 0xx was cut.",
		}, []string{"surface", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "bulwark_http_request_seconds", Help: "Duration of requests by surface.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"surface"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bulwark_http_panics_total", Help: "Handlers that panicked."}),
		limited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bulwark_http_rate_limited_total", Help: "Requests refused because of their address's rate."}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "bulwark_http_connections", Help: "Open connections of clients."}),
	}
	// A node's servers have one registry: what the first has registered serves them all.
	m.requests, m.seconds = registered(reg, m.requests), registered(reg, m.seconds)
	m.panics, m.limited, m.connections = registered(reg, m.panics), registered(reg, m.limited), registered(reg, m.connections)
	registered(reg, collectors.NewGoCollector())
	registered(reg, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// registered registers c, or returns the one that is there under its name.
func registered[C prometheus.Collector](reg *prometheus.Registry, c C) C {
	var there prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &there) {
		if same, ok := there.ExistingCollector.(C); ok {
			return same
		}
	} else if err != nil {
		panic(err)
	}
	return c
}

func (m *metrics) observe(surface, method string, status int, took time.Duration) {
	if surface == "" {
		surface = "refused"
	}
	m.requests.WithLabelValues(surface, knownMethod(method), strconv.Itoa(status/100)+"xx").Inc()
	m.seconds.WithLabelValues(surface).Observe(took.Seconds())
}

func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// metricsHandler serves the metrics to the console, and over TLS to an operator.
func (s *Server) metricsHandler() http.Handler {
	h := promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.cfg.Authenticator.Operator(r, storage.System, storage.ID{}); err != nil {
			s.refuse(w, r, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// ServeMonitoring serves health, readiness and metrics on l, and nothing else, without TLS and without asking who it is: for a
// network of the operator's own. It closes l.
func (s *Server) ServeMonitoring(l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: s.cfg.HeaderTimeout, ReadTimeout: s.cfg.HeaderTimeout, WriteTimeout: s.cfg.RequestTimeout,
		IdleTimeout: s.cfg.IdleTimeout, MaxHeaderBytes: s.cfg.MaxHeader,
	}
	return s.run(srv, func() error { return srv.Serve(limitListener(l, monitors, s.metrics.connections)) }, l)
}

// monitors bounds the connections of those who monitor.
const monitors = 64
