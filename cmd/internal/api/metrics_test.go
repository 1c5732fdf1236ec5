package api

import (
	"net/http/httptest"
	"testing"
)

type fixedMetrics []Metric

func (f fixedMetrics) Metrics() []Metric { return f }

func TestMetrics(t *testing.T) {
	h := Metrics(fixedMetrics{
		{Name: "minictl_leader_known", Help: "Whether somebody decides.", Samples: []Sample{{Value: 1}}},
		{Name: "minictl_drift_repaired_total", Help: "Repairs.", Counter: true, Samples: []Sample{{"kind", "fdb", 2}, {"kind", "nft", 0}}},
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	want := `# HELP minictl_leader_known Whether somebody decides.
# TYPE minictl_leader_known gauge
minictl_leader_known 1
# HELP minictl_drift_repaired_total Repairs.
# TYPE minictl_drift_repaired_total counter
minictl_drift_repaired_total{kind="fdb"} 2
minictl_drift_repaired_total{kind="nft"} 0
`
	if got := w.Body.String(); w.Code != 200 || got != want {
		t.Errorf("%d:\n%s", w.Code, got)
	}
	for _, path := range []string{"/", "/containers/json"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
