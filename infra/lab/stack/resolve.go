package stack

import "fmt"

// Resolve returns an expanded template's resources for parameters and pseudo parameters: conditions are decided, mappings and
// numbers are replaced by their values. It fails if a parameter lacks a value.
func Resolve(expanded map[string]any, parameters, pseudo map[string]string) (map[string]any, error) {
	d, err := newDecider(expanded, parameters, pseudo)
	if err != nil {
		return nil, err
	}
	resources, err := d.prune(object(expanded["Resources"]))
	if err != nil {
		return nil, err
	}
	for id, r := range resources {
		if err := d.numbers(object(r)["Properties"], object(expanded["Parameters"])); err != nil {
			return nil, fmt.Errorf("%s: %w", id, err)
		}
	}
	return resources, nil
}
