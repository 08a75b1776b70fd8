package awsmodel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// decode returns the input in a request's body: structures and maps as map[string]any, lists as []any, numbers as json.Number.
func (m *Model) decode(input shapeRef, body []byte) (any, error) {
	switch m.Metadata.Protocol {
	case "json":
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		var value any
		if err := decoder.Decode(&value); err != nil {
			return nil, fmt.Errorf("the body is not JSON: %w", err)
		}
		return value, nil
	case "query", "ec2":
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, fmt.Errorf("the body is not a form: %w", err)
		}
		form.Del("Action")
		form.Del("Version")
		f := &formReader{model: m, form: form, isEC2: m.Metadata.Protocol == "ec2"}
		value := any(map[string]any{})
		if m.Shapes[input.Shape] != nil {
			value = f.value("", input)
		}
		if len(f.form) > 0 {
			return nil, fmt.Errorf("there are no parameters %q", slices.Sorted(maps.Keys(f.form)))
		}
		return value, nil
	}
	return nil, fmt.Errorf("the protocol %q is not known here", m.Metadata.Protocol)
}

// formReader takes an input out of a form. What is left in the form is unknown to the model.
// https://smithy.io/2.0/aws/protocols/aws-query-protocol.html and https://smithy.io/2.0/aws/protocols/aws-ec2-query-protocol.html
type formReader struct {
	model *Model
	form  url.Values
	isEC2 bool
}

// value returns the value with a name in the form; nil if the form has none.
func (f *formReader) value(at string, ref shapeRef) any {
	s := f.model.Shapes[ref.Shape]
	switch s.Type {
	case "structure":
		out := map[string]any{}
		for name, member := range s.Members {
			if v := f.value(join(at, f.name(name, member)), member); v != nil {
				out[name] = v
			}
		}
		if at != "" && len(out) == 0 {
			return nil
		}
		return out
	case "list":
		if !f.isEC2 && !s.Flattened && !ref.Flattened {
			name := s.Member.LocationName
			if name == "" {
				name = "member"
			}
			at = join(at, name)
		}
		var out []any
		for n := 1; ; n++ {
			v := f.value(join(at, strconv.Itoa(n)), s.Member)
			if v == nil {
				break
			}
			out = append(out, v)
		}
		if out == nil {
			return nil
		}
		return out
	}
	values, ok := f.form[at]
	if !ok {
		return nil
	}
	delete(f.form, at)
	return scalar(s.Type, values[0])
}

// name returns the name of a structure's member in a form.
func (f *formReader) name(member string, ref shapeRef) string {
	switch {
	case f.isEC2 && ref.QueryName != "":
		return ref.QueryName
	case f.isEC2 && ref.LocationName != "":
		return strings.ToUpper(ref.LocationName[:1]) + ref.LocationName[1:]
	case ref.LocationName != "":
		return ref.LocationName
	}
	return member
}

// scalar returns a form's text as the type of its shape, or as text if it is none.
func scalar(kind, text string) any {
	switch kind {
	case "integer", "long", "float", "double":
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			return json.Number(text)
		}
	case "boolean":
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	}
	return text
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}
