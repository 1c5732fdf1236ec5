package ctrd

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkTrue is one start of "true": task created, started, ended, deleted.
func BenchmarkTrue(b *testing.B) {
	h := newHost(b)
	r := h.start(b)
	img := busybox(b, r)
	id := newID()
	if err := r.Create(b.Context(), id, img, nil); err != nil {
		b.Fatal(err)
	}
	var create, run, del time.Duration
	for b.Loop() {
		t0 := time.Now()
		task, err := r.NewTask(b.Context(), id, TaskOptions{Spec: h.spec(id, "true"), LogDir: h.logDir(id)})
		if err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		exit := task.Wait()
		if err := task.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		<-exit
		t2 := time.Now()
		if _, err := task.Delete(b.Context()); err != nil {
			b.Fatal(err)
		}
		create, run, del = create+t1.Sub(t0), run+t2.Sub(t1), del+time.Since(t2)
	}
	for name, d := range map[string]time.Duration{"create": create, "run": run, "delete": del} {
		b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), name+"-ms/op")
	}
}

// BenchmarkShimMemory reports the private memory of one idle container's shim.
func BenchmarkShimMemory(b *testing.B) {
	h := newHost(b)
	r := h.start(b)
	_, task := create(b, r, h, busybox(b, r), TaskOptions{LogDir: h.logDir("x")}, "sh", "-c", "seq 20000; sleep 1000")
	if err := task.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	eventually(b, "output", func() bool { return strings.HasSuffix(logText(b, h.logDir("x"), ""), "20000\n") })
	ppid := parentOf(b, task.Pid())
	smaps, err := os.ReadFile("/proc/" + strconv.Itoa(ppid) + "/smaps_rollup")
	if err != nil {
		b.Fatal(err)
	}
	private := 0.0 // dirty: clean pages are the binary, shared by all shims
	for _, line := range strings.Split(string(smaps), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Private_Dirty:" {
			n, _ := strconv.Atoi(f[1])
			private += float64(n) / 1024
		}
	}
	b.ReportMetric(private, "private-MB")
}
