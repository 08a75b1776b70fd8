package plots

import (
	"fmt"
	"image/color"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
)

func starts(r report.Results) (*plot.Plot, error) {
	return throughput(r, "starts", func(s report.Storm) report.Wave { return s.Start })
}

func ends(r report.Results) (*plot.Plot, error) {
	return throughput(r, "ends", func(s report.Storm) report.Wave { return s.End })
}

// throughput draws a group of bars for each setup: bare HTTP's writes alone, bare HTTP's same calls, and ours.
func throughput(r report.Results, what string, of func(report.Storm) report.Wave) (*plot.Plot, error) {
	if len(r.Storms) == 0 {
		return nil, nil
	}
	p := newPlot(fmt.Sprintf("%s %s at once: throughput beside its limits", report.Thousands(r.Storms[0].Instances), what), "Vault", "instances a second")
	const barWidth = 7 * vg.Millimeter
	for n, bars := range []struct {
		name  string
		color color.Color
		of    func(report.Wave) report.Pass
	}{
		{"bare HTTP, the writes to Vault alone", grey(), func(w report.Wave) report.Pass { return w.Writes }},
		{"bare HTTP, the same calls to Vault", sky(), func(w report.Wave) report.Pass { return w.SameCalls }},
		{"the functions", blue(), func(w report.Wave) report.Pass { return w.Ours }},
	} {
		values, labels := make(plotter.Values, len(r.Storms)), plotter.XYLabels{}
		for i, s := range r.Storms {
			if pass := bars.of(of(s)); pass.Seconds > 0 {
				values[i] = float64(s.Instances) / pass.Seconds
			}
			labels.XYs, labels.Labels = append(labels.XYs, plotter.XY{X: float64(i), Y: values[i]}), append(labels.Labels, fmt.Sprintf("%.0f", values[i]))
		}
		chart, err := plotter.NewBarChart(values, barWidth)
		if err != nil {
			return nil, err
		}
		offset := vg.Length(n-1) * barWidth
		chart.Color, chart.Offset, chart.LineStyle.Width = bars.color, offset, 0
		above, err := plotter.NewLabels(labels)
		if err != nil {
			return nil, err
		}
		above.Offset = vg.Point{X: offset, Y: vg.Millimeter}
		for i := range above.TextStyle {
			above.TextStyle[i].Font.Variant, above.TextStyle[i].Font.Size, above.TextStyle[i].XAlign = "Sans", 8, draw.XCenter
		}
		p.Add(chart, above)
		p.Legend.Add(bars.name, chart)
	}
	names := make([]string, len(r.Storms))
	for i, s := range r.Storms {
		names[i] = strings.Join(shortly(s.Setup), "\n")
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.5, float64(len(names))-0.5
	p.Y.Tick.Marker = Round{}
	p.Y.Max *= 1.3 // room for the legend above the bars
	p.Legend.Top, p.Legend.XOffs = true, 9*vg.Centimeter
	return p, nil
}

// shortly returns the lines of a setup's label, which fits below its bars.
func shortly(s report.Setup) []string {
	lines := []string{"in memory"}
	if s.Raft {
		lines[0] = "on Raft"
	}
	if s.Delayed {
		lines = append(lines, "5 ms a call")
	}
	switch {
	case s.Apart:
		return append(lines, "own core")
	case s.LedgerInMemory:
		return append(lines, "no DynamoDB")
	}
	return append(lines, "shared cores")
}

// ready draws for each setup which share of a storm's instances was ready after a time.
func ready(r report.Results) (*plot.Plot, error) {
	if len(r.Storms) == 0 {
		return nil, nil
	}
	p := newPlot(fmt.Sprintf("%s starts at once: time until an instance is ready", report.Thousands(r.Storms[0].Instances)), "seconds since the first message was received", "instances ready")
	p.Add(grid())
	for _, s := range r.Storms {
		points := make(plotter.XYs, len(s.Start.Done))
		for q, at := range s.Start.Done {
			points[q] = plotter.XY{X: at, Y: float64(q)}
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.Width, line.Color = vg.Points(2), blue()
		switch {
		case s.Setup.Raft:
			line.Color = orange()
		case s.Setup.Delayed:
			line.Color = green()
		case s.Setup.LedgerInMemory && !s.Setup.Apart:
			line.Color = grey()
		}
		if !s.Setup.Apart {
			line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
		}
		p.Add(line)
		p.Legend.Add("Vault "+strings.Join(shortly(s.Setup), ", "), line)
	}
	p.X.Min, p.Y.Max = 0, 100
	p.Legend.XOffs = 8.5 * vg.Centimeter
	p.X.Tick.Marker, p.Y.Tick.Marker = Round{}, Round{Unit: " %"}
	return p, nil
}

// grid returns faint lines at the labelled marks.
func grid() *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = faint(), faint()
	return g
}
