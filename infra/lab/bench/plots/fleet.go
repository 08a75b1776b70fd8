package plots

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
)

// fleet draws the cost of an instance in a comparison against the size of the fleet, beside the raw reads'.
func fleet(r report.Results) (*plot.Plot, error) {
	if len(r.Fleets) == 0 {
		return nil, nil
	}
	p := newPlot("Comparing a fleet: cost of an instance", "instances", "milliseconds for each instance")
	p.Add(grid())
	for _, side := range []struct {
		name  string
		color color.Color
		shape draw.GlyphDrawer
		of    func(report.Fleet) float64
	}{
		{"a full comparison", blue(), draw.CircleGlyph{}, func(f report.Fleet) float64 { return f.Ours }},
		{"raw reads of the same objects", orange(), draw.BoxGlyph{}, func(f report.Fleet) float64 { return f.Raw }},
	} {
		points := make(plotter.XYs, len(r.Fleets))
		for i, f := range r.Fleets {
			points[i] = plotter.XY{X: float64(f.Instances), Y: side.of(f) * 1000 / float64(f.Instances)}
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		line.Width, line.Color = vg.Points(2), side.color
		marks.GlyphStyle = draw.GlyphStyle{Color: side.color, Radius: vg.Points(4), Shape: side.shape}
		p.Add(line, marks)
		p.Legend.Add(side.name, line, marks)
	}
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, sizes(r.Fleets)
	p.Y.Tick.Marker = Round{}
	p.Y.Max *= 1.1
	p.Legend.XOffs = 10 * vg.Centimeter
	p.X.Min, p.X.Max = p.X.Min/1.2, p.X.Max*1.2
	return p, nil
}

// sizes labels an axis at the sizes of the fleets.
type sizes []report.Fleet

// Ticks returns a labelled mark for each fleet.
func (s sizes) Ticks(float64, float64) []plot.Tick {
	var ticks []plot.Tick
	for _, f := range s {
		ticks = append(ticks, plot.Tick{Value: float64(f.Instances), Label: report.Thousands(f.Instances)})
	}
	return ticks
}
