package plots

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
)

// The files of the plots.
const (
	StartsFile = "starts.svg"
	EndsFile   = "ends.svg"
	ReadyFile  = "ready.svg"
	FleetFile  = "fleet.svg"
)

// Write draws each plot whose figures were measured into a folder, and returns the files that it wrote.
func Write(folder string, r report.Results) (written []string, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the plots: %w", err)
	}
	for _, p := range []struct {
		file string
		draw func(report.Results) (*plot.Plot, error)
	}{{StartsFile, starts}, {EndsFile, ends}, {ReadyFile, ready}, {FleetFile, fleet}} {
		drawn, err := p.draw(r)
		if err != nil {
			return written, fmt.Errorf("drawing %s: %w", p.file, err)
		}
		if drawn == nil {
			continue
		}
		path := filepath.Join(folder, p.file)
		if err := os.WriteFile(path, svg(drawn), 0o644); err != nil {
			return written, fmt.Errorf("writing a plot: %w", err)
		}
		written = append(written, path)
	}
	return written, nil
}

const (
	width, height = 20 * vg.Centimeter, 10 * vg.Centimeter
	margin        = 4 * vg.Millimeter
	textSize      = 10
)

// Colours of Okabe and Ito, which readers with each kind of colour blindness can tell apart.
// https://jfly.uni-koeln.de/color/
func blue() color.Color   { return color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff} }
func sky() color.Color    { return color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff} }
func orange() color.Color { return color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff} }
func grey() color.Color   { return color.RGBA{R: 0x99, G: 0x99, B: 0x99, A: 0xff} }
func green() color.Color  { return color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff} }
func faint() color.Color  { return color.RGBA{R: 0xdd, G: 0xdd, B: 0xdd, A: 0xff} }

// newPlot returns an empty plot with a title and the axes' labels.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.Padding = 3 * vg.Millimeter
	for _, f := range []*font.Font{
		&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font,
		&p.Legend.TextStyle.Font,
	} {
		f.Variant, f.Size = "Sans", textSize
	}
	p.Title.TextStyle.Font.Size = textSize + 2
	p.X.Label.Padding, p.Y.Label.Padding = 2*vg.Millimeter, 2*vg.Millimeter
	// A text after its thumbnail does not run into it, however wide the reader's font.
	p.Legend.Left = true
	p.Legend.ThumbnailWidth, p.Legend.Padding = 8*vg.Millimeter, vg.Millimeter
	p.Y.Min = 0
	return p
}

// svg returns the plot as SVG.
func svg(p *plot.Plot) []byte {
	c := vgsvg.New(width, height)
	drawing := draw.New(c)
	drawing.SetColor(color.White)
	drawing.Fill(drawing.Path())
	p.Draw(draw.Crop(drawing, margin, -margin, margin, -margin))
	return Bytes(c)
}

// Bytes returns the text of a drawing, whose texts are in Liberation Sans.
func Bytes(c *vgsvg.Canvas) []byte {
	var out bytes.Buffer
	_, _ = c.WriteTo(&out) // a buffer takes everything
	// Liberation Sans, with which the text was measured, has the widths of Arial and Helvetica.
	return bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
}

// Round labels an axis at round values that its labels can show, each followed by a unit.
type Round struct{ Unit string }

// Ticks returns about six labelled marks.
func (r Round) Ticks(low, high float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/4)))
	for _, factor := range []float64{5, 2} {
		if (high-low)/(step*factor) >= 4 {
			step *= factor
			break
		}
	}
	var ticks []plot.Tick
	for n := math.Ceil(low / step); n*step <= high; n++ {
		ticks = append(ticks, plot.Tick{Value: n * step, Label: fmt.Sprintf("%.6g%s", n*step, r.Unit)})
	}
	return ticks
}
