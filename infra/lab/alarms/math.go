package alarms

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode"
)

// point is a series' value in one period; ok is false if it is missing.
type point struct {
	value float64
	ok    bool
}

// values are the points of the metrics in one period, by ID, and the metrics without any point in the evaluation range.
type values struct {
	points  map[string]point
	empty   map[string]bool
	reading Reading
}

// expression returns its value in one period.
type expression func(values) point

func name(id string) expression { return func(v values) point { return v.points[id] } }

// parse returns a metric math expression of sums, differences, comparisons with >, FILL of a metric, MAX of a list and IF. Every
// metric must be inside a FILL, so that few results hang on missing points.
func parse(text string, known map[string]series) (expression, error) {
	p := parser{rest: []rune(text), known: known}
	e, err := p.comparison()
	if err == nil && p.peek() != 0 {
		err = fmt.Errorf("unexpected %q", string(p.rest))
	}
	return e, err
}

type parser struct {
	rest  []rune
	known map[string]series
}

// peek returns the next rune that is no space, 0 at the end.
func (p *parser) peek() rune {
	for len(p.rest) > 0 && unicode.IsSpace(p.rest[0]) {
		p.rest = p.rest[1:]
	}
	if len(p.rest) == 0 {
		return 0
	}
	return p.rest[0]
}

// take consumes r if it is next.
func (p *parser) take(r rune) bool {
	if p.peek() != r {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *parser) want(r rune) error {
	if !p.take(r) {
		return fmt.Errorf("want %q before %q", r, string(p.rest))
	}
	return nil
}

// word consumes letters and digits.
func (p *parser) word() string {
	p.peek()
	n := 0
	for n < len(p.rest) && (unicode.IsLetter(p.rest[n]) || unicode.IsDigit(p.rest[n]) || p.rest[n] == '_') {
		n++
	}
	word := string(p.rest[:n])
	p.rest = p.rest[n:]
	return word
}

func (p *parser) comparison() (expression, error) {
	left, err := p.sum()
	if err != nil || !p.take('>') {
		return left, err
	}
	right, err := p.sum()
	return both(left, right, func(a, b float64) float64 {
		if a > b {
			return 1
		}
		return 0
	}), err
}

func (p *parser) sum() (expression, error) {
	left, err := p.operand()
	for err == nil {
		var operation func(a, b float64) float64
		switch {
		case p.take('+'):
			operation = func(a, b float64) float64 { return a + b }
		case p.take('-'):
			operation = func(a, b float64) float64 { return a - b }
		default:
			return left, nil
		}
		var right expression
		if right, err = p.operand(); err == nil {
			left = both(left, right, operation)
		}
	}
	return nil, err
}

// both applies an operation to two points. A missing one counts as 0 beside one that is there, as is seen in AWS:
// https://github.com/compiler-explorer/infra/pull/1661
func both(left, right expression, operation func(a, b float64) float64) expression {
	return func(v values) point {
		a, b := left(v), right(v)
		return point{operation(a.value, b.value), a.ok || b.ok}
	}
}

func (p *parser) operand() (expression, error) {
	word := p.word()
	if number, err := strconv.ParseFloat(word, 64); err == nil {
		return func(values) point { return point{number, true} }, nil
	}
	if !p.take('(') {
		return nil, fmt.Errorf("%q is neither a number nor a function of FILLed metrics", word)
	}
	var e expression
	var err error
	switch word {
	case "FILL":
		e, err = p.fill()
	case "MAX":
		e, err = p.max()
	case "IF":
		e, err = p.choice()
	default:
		return nil, fmt.Errorf("the function %q is not implemented", word)
	}
	if err == nil {
		err = p.want(')')
	}
	return e, err
}

// fill parses the arguments of FILL(metric, number).
func (p *parser) fill() (expression, error) {
	id := p.word()
	if _, ok := p.known[id]; !ok {
		return nil, fmt.Errorf("FILL of %q, which is none of %q", id, slices.Sorted(maps.Keys(p.known)))
	}
	if err := p.want(','); err != nil {
		return nil, err
	}
	filler, err := p.operand()
	return func(v values) point {
		if found := v.points[id]; found.ok {
			return found
		}
		if v.empty[id] && v.reading.EmptyStaysEmpty {
			return point{}
		}
		return filler(v)
	}, err
}

// max parses the argument of MAX([…]).
func (p *parser) max() (expression, error) {
	err := p.want('[')
	var all []expression
	for err == nil {
		var e expression
		if e, err = p.sum(); err != nil {
			break
		}
		if all = append(all, e); !p.take(',') {
			err = p.want(']')
			break
		}
	}
	return func(v values) point {
		var most point
		for _, e := range all {
			if at := e(v); at.ok && (!most.ok || at.value > most.value) {
				most = at
			}
		}
		return most
	}, err
}

// choice parses the arguments of IF(condition, value, otherwise).
func (p *parser) choice() (expression, error) {
	var parts [3]expression
	for i := range parts {
		if i > 0 {
			if err := p.want(','); err != nil {
				return nil, err
			}
		}
		e, err := p.comparison()
		if err != nil {
			return nil, err
		}
		parts[i] = e
	}
	return func(v values) point {
		condition := parts[0](v)
		switch {
		case !condition.ok:
			return point{}
		case condition.value != 0:
			return parts[1](v)
		}
		return parts[2](v)
	}, nil
}
