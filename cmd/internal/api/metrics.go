package api

import (
	"fmt"
	"io"
	"net/http"
)

// Metric is one figure in the text format of Prometheus (version 0.0.4).
type Metric struct {
	Name, Help string
	Counter    bool // it only grows, until the daemon is started again; else it is a gauge
	Samples    []Sample
}

// Sample is a metric's value, of one value of its label if it has one.
type Sample struct {
	Label, Of string
	Value     uint64
}

// MetricsBackend knows the figures.
type MetricsBackend interface{ Metrics() []Metric }

// Metrics serves GET /metrics and nothing else.
func Metrics(b MetricsBackend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		writeMetrics(w, b.Metrics())
	})
	return mux
}

func writeMetrics(w io.Writer, list []Metric) {
	for _, m := range list {
		kind := "gauge"
		if m.Counter {
			kind = "counter"
		}
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", m.Name, m.Help, m.Name, kind)
		for _, s := range m.Samples {
			if s.Label == "" {
				fmt.Fprintf(w, "%s %d\n", m.Name, s.Value)
			} else {
				fmt.Fprintf(w, "%s{%s=%q} %d\n", m.Name, s.Label, s.Of, s.Value)
			}
		}
	}
}
