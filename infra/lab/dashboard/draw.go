package dashboard

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/plots"
)

// Scenes returns the names of the recorded scenes, in the order of the page.
func Scenes() []string { return []string{"storm", "outage", "quiet"} }

// File returns the name of a scene's picture.
func File(scene string) string { return scene + ".svg" }

// WriteAll draws each scene that a folder has recorded into another folder, which it makes if it is missing.
func WriteAll(d Dashboard, recordings, pictures string) error {
	if err := os.MkdirAll(pictures, 0o755); err != nil {
		return fmt.Errorf("making the folder of the pictures: %w", err)
	}
	for _, name := range Scenes() {
		r, err := Load(recordings, name)
		if err != nil {
			return err
		}
		picture, err := Draw(d, r)
		if err != nil {
			return fmt.Errorf("drawing the scene %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(pictures, File(name)), picture, 0o644); err != nil {
			return fmt.Errorf("writing a picture: %w", err)
		}
	}
	return nil
}

const (
	column, line  = vg.Length(35), vg.Length(31) // of the dashboard's grid
	columns       = 24
	head          = vg.Length(34)
	inset         = vg.Length(3)
	textSize      = vg.Length(8)
	legendText    = vg.Length(7.4)
	legendLine    = vg.Length(10)
	legendColumn  = vg.Length(128)
	thumbnail     = vg.Length(10)
	titleHeight   = vg.Length(15)
	alarmColumns  = 4
	leastMarks    = vg.Length(1.6)
	lineWidth     = vg.Length(1.3)
	belowTheTitle = vg.Length(4)
)

// Draw returns a scene's dashboard as SVG. Equal input returns equal bytes.
func Draw(d Dashboard, r Recording) ([]byte, error) {
	bottom := 0
	for _, w := range d.Widgets {
		bottom = max(bottom, w.Y+w.Height)
	}
	c := vgsvg.New(columns*column, vg.Length(bottom)*line+head)
	whole := draw.New(c)
	fill(&whole, color.White)
	write(&whole, style(12, ink()), inset, whole.Max.Y-15, r.Title)
	write(&whole, style(textSize, grey()), inset, whole.Max.Y-28,
		fmt.Sprintf("Recorded in the lab in %s, drawn as %s. All values are as measured.", r.Length, clock(r.Shown())))
	for _, w := range d.Widgets {
		top := whole.Max.Y - head - vg.Length(w.Y)*line
		at := draw.Canvas{Canvas: whole.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: vg.Length(w.X)*column + inset, Y: top - vg.Length(w.Height)*line + inset},
			Max: vg.Point{X: vg.Length(w.X+w.Width)*column - inset, Y: top - inset},
		}}
		frame(&at)
		write(&at, style(9, ink()), at.Min.X+inset, at.Max.Y-11, w.Title)
		inside := draw.Crop(at, inset, -inset, inset, -titleHeight)
		if err := drawWidget(inside, d, w, r); err != nil {
			return nil, fmt.Errorf("widget %q: %w", w.Title, err)
		}
	}
	return plots.Bytes(c), nil
}

func drawWidget(c draw.Canvas, d Dashboard, w Widget, r Recording) error {
	if len(w.Alarms) > 0 {
		drawAlarms(c, d, w, r)
		return nil
	}
	p := plot.New()
	p.BackgroundColor = color.White
	p.Y.Min, p.Y.Max, p.X.Min, p.X.Max = 0, 1, 0, r.Shown().Minutes()
	var shown []entry
	for _, s := range w.Series {
		points, err := r.points(s, w.Period)
		if err != nil {
			return err
		}
		if len(points) == 0 {
			continue
		}
		e := entry{s.Label, nth(len(shown))}
		shown = append(shown, e)
		if err := addLine(p, points, e.style, time.Duration(w.Period)*time.Second); err != nil {
			return err
		}
	}
	c = drawLegend(c, shown, len(w.Series)-len(shown))
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = faint(), faint()
	p.Add(grid)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, r.Shown().Minutes(), 0, max(p.Y.Max, 1)*1.05
	p.X.Tick.Marker, p.Y.Tick.Marker = hours{}, plots.Round{}
	for _, f := range []*font.Font{&p.X.Tick.Label.Font, &p.Y.Tick.Label.Font} {
		f.Variant, f.Size = "Sans", textSize
	}
	p.X.Padding, p.Y.Padding = 0, 0
	p.Draw(draw.Crop(c, 0, -belowTheTitle*2, 0, -belowTheTitle))
	return nil
}

// addLine adds the points of a series: joined where the next one is at most two periods later, and a mark where a point has no
// neighbour. The lab counts the messages in queues once in two periods of a day, AWS in each minute.
func addLine(p *plot.Plot, points []point, s draw.LineStyle, period time.Duration) error {
	var run plotter.XYs
	for i, at := range points {
		run = append(run, plotter.XY{X: at.at.Minutes(), Y: at.value})
		if i+1 < len(points) && points[i+1].at <= at.at+2*period {
			continue
		}
		if len(run) == 1 {
			marks, err := plotter.NewScatter(run)
			if err != nil {
				return err
			}
			marks.GlyphStyle = draw.GlyphStyle{Color: s.Color, Radius: leastMarks, Shape: draw.CircleGlyph{}}
			p.Add(marks)
		} else {
			joined, err := plotter.NewLine(run)
			if err != nil {
				return err
			}
			joined.LineStyle = s
			p.Add(joined)
		}
		run = nil
	}
	return nil
}

// entry is a line of a legend.
type entry struct {
	label string
	style draw.LineStyle
}

// drawLegend draws the legend below a widget and returns the room above it. Series without data are only counted.
func drawLegend(c draw.Canvas, shown []entry, without int) draw.Canvas {
	perLine := max(1, int((c.Max.X-c.Min.X)/legendColumn))
	note := fmt.Sprintf("without data: %d", without)
	if without > 0 {
		shown = append(shown, entry{label: note})
	}
	lines := (len(shown) + perLine - 1) / perLine
	for i, e := range shown {
		x := c.Min.X + vg.Length(i%perLine)*(c.Max.X-c.Min.X)/vg.Length(perLine)
		y := c.Min.Y + vg.Length(lines-1-i/perLine)*legendLine + 2
		if e.style.Width > 0 {
			c.StrokeLine2(e.style, x, y+3, x+thumbnail, y+3)
			write(&c, style(legendText, ink()), x+thumbnail+2, y, e.label)
		} else {
			write(&c, style(legendText, grey()), x, y, e.label)
		}
	}
	return draw.Crop(c, 0, 0, vg.Length(lines)*legendLine+2, 0)
}

// drawAlarms draws a name for each alarm, with a full square if it went off in the scene.
func drawAlarms(c draw.Canvas, d Dashboard, w Widget, r Recording) {
	for i, name := range w.Alarms {
		x := c.Min.X + vg.Length(i%alarmColumns)*(c.Max.X-c.Min.X)/alarmColumns
		y := c.Max.Y - belowTheTitle - vg.Length(i/alarmColumns+1)*(legendLine+5)
		label, of := name, green()
		if r.wentOff(d.Alarms[name]) {
			label, of = name+": went off", orange()
		}
		square := draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{Min: vg.Point{X: x + 2, Y: y}, Max: vg.Point{X: x + 10, Y: y + 8}}}
		fill(&square, of)
		write(&c, style(9, ink()), x+14, y, label)
	}
}

// hours labels a time axis in minutes.
type hours struct{}

// Ticks returns a labelled mark every quarter of an hour, or every four hours of a day.
func (hours) Ticks(_, most float64) []plot.Tick {
	step := 15.0
	if most > 240 {
		step = 240
	}
	var ticks []plot.Tick
	for at := 0.0; at <= most; at += step {
		ticks = append(ticks, plot.Tick{Value: at, Label: clock(time.Duration(at) * time.Minute)})
	}
	return ticks
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%d:%02d h", int(d.Hours()), int(d.Minutes())%60)
}

// nth returns the style of a widget's nth line: eight colours, then the same with dashes.
func nth(n int) draw.LineStyle {
	all := []color.Color{
		color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff}, orange(), green(), color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff},
		color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff}, color.RGBA{R: 0xe6, G: 0x9f, A: 0xff}, ink(), grey(),
	}
	s := draw.LineStyle{Color: all[n%len(all)], Width: lineWidth}
	switch n / len(all) {
	case 0:
	case 1:
		s.Dashes = []vg.Length{vg.Points(4), vg.Points(2)}
	default:
		s.Dashes = []vg.Length{vg.Points(1.5), vg.Points(1.5)}
	}
	return s
}

// Colours of Okabe and Ito, as in the benchmarks' plots. https://jfly.uni-koeln.de/color/
func orange() color.Color { return color.RGBA{R: 0xd5, G: 0x5e, A: 0xff} }
func green() color.Color  { return color.RGBA{G: 0x9e, B: 0x73, A: 0xff} }
func grey() color.Color   { return color.RGBA{R: 0x77, G: 0x77, B: 0x77, A: 0xff} }
func faint() color.Color  { return color.RGBA{R: 0xe2, G: 0xe2, B: 0xe2, A: 0xff} }
func ink() color.Color    { return color.RGBA{R: 0x22, G: 0x22, B: 0x22, A: 0xff} }

func style(size vg.Length, c color.Color) draw.TextStyle {
	return draw.TextStyle{
		Color: c, Font: font.Font{Typeface: plot.DefaultFont.Typeface, Variant: "Sans", Size: size}, XAlign: draw.XLeft,
		Handler: text.Plain{Fonts: font.DefaultCache},
	}
}

func write(c *draw.Canvas, s draw.TextStyle, x, y vg.Length, what string) {
	c.FillText(s, vg.Point{X: x, Y: y}, what)
}

// fill fills a canvas.
func fill(c *draw.Canvas, with color.Color) {
	c.SetColor(with)
	c.Fill(c.Path())
}

// frame draws a faint line around a canvas.
func frame(c *draw.Canvas) {
	c.SetLineStyle(draw.LineStyle{Color: faint(), Width: vg.Points(1)})
	c.Stroke(c.Path())
}
