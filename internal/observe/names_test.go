package observe_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe/observetest"
)

func TestMetricsPage_NamesEveryMetricAndKey(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, m[1]+" "+m[2])
	}
	var want []string
	counts, times := observetest.MetricNames()
	for _, n := range counts {
		want = append(want, n+" Count")
	}
	for _, n := range times {
		want = append(want, n+" Milliseconds")
	}
	if !slices.Equal(documented, want) {
		t.Errorf("docs/metrics.md names\n%q, the code\n%q", documented, want)
	}
	_, rest, _ := strings.Cut(string(page), "no other keys than these:")
	list, _, _ := strings.Cut(rest, "`request_id` is")
	var keys []string
	for _, m := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(list, -1) {
		keys = append(keys, m[1])
	}
	if !slices.Equal(keys, observetest.Keys()[3:]) {
		t.Errorf("docs/metrics.md lists the keys\n%q, the code\n%q", keys, observetest.Keys()[3:])
	}
}
