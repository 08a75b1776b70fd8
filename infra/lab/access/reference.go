package access

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Reference is AWS's service authorization reference.
// https://docs.aws.amazon.com/service-authorization/latest/reference/reference.html
type Reference struct {
	services map[string]service
	globals  map[string]string // types of the condition keys that every action may have, by key in lower case
}

type service struct {
	actions       map[string]Action
	resourceTypes map[string]resourceType
	keys          map[string]conditionKey
}

// Action is an action as the reference describes it. Service is its prefix, and Name is without it.
type Action struct {
	Service       string
	Name          string           `json:"name"`
	AccessLevel   string           `json:"accessLevel"`   // one or more, such as "Tagging, Write"
	ResourceTypes []actionResource `json:"resourceTypes"` // none: the action knows no resource but "*"
	ConditionKeys []string         `json:"conditionKeys"`
}

func (a Action) String() string { return a.Service + ":" + a.Name }

type actionResource struct {
	Name          string   `json:"name"`
	ConditionKeys []string `json:"conditionKeys"`
}

type resourceType struct {
	ARN           string   `json:"arn"` // with ${…} for each variable part
	ConditionKeys []string `json:"conditionKeys"`
}

type conditionKey struct {
	Key  string `json:"key"`
	Type string `json:"type"`
}

// globalKey is an entry of the package's list of global keys, which it has as JavaScript only.
var globalKey = regexp.MustCompile(`key: '([^']+)',\s+category: '[^']+',\s+type: '(\w+)'`)

// Load reads the reference from the folder of its npm package.
func Load(dir string) (*Reference, error) {
	script, err := os.ReadFile(filepath.Join(dir, "dist", "cjs", "globalConditionKeys.js"))
	if err != nil {
		return nil, fmt.Errorf("reading the global condition keys: %w", err)
	}
	r := &Reference{services: map[string]service{}, globals: map[string]string{}}
	for _, m := range globalKey.FindAllStringSubmatch(string(script), -1) {
		r.globals[strings.ToLower(m[1])] = m[2]
	}
	if r.globals["aws:principalarn"] != "ARN" || r.globals["aws:sourcearn"] != "ARN" {
		return nil, fmt.Errorf("reading the global condition keys: found %d, and not aws:PrincipalArn and aws:SourceArn; the package has another form", len(r.globals))
	}
	var prefixes []string
	if err := readJSON(filepath.Join(dir, "data", "services.json"), &prefixes); err != nil {
		return nil, err
	}
	for _, prefix := range prefixes {
		var s service
		for folder, into := range map[string]any{"actions": &s.actions, "resourceTypes": &s.resourceTypes, "conditionKeys": &s.keys} {
			if err := readJSON(filepath.Join(dir, "data", folder, prefix+".json"), into); err != nil {
				return nil, err
			}
		}
		for name, action := range s.actions {
			action.Service = prefix
			s.actions[name] = action
		}
		r.services[prefix] = s
	}
	return r, nil
}

func readJSON(file string, into any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading AWS's service authorization reference: %w", err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("reading AWS's service authorization reference: %s: %w", file, err)
	}
	return nil
}

// Expand returns the actions that a statement's action names; * and ? are wildcards. It is empty for an unknown action.
func (r *Reference) Expand(pattern string) []Action {
	prefix, name, _ := strings.Cut(strings.ToLower(pattern), ":")
	if pattern == "*" {
		prefix, name = "*", "*"
	}
	if !strings.ContainsAny(pattern, "*?") {
		if action, ok := r.services[prefix].actions[name]; ok {
			return []Action{action}
		}
		return nil
	}
	var out []Action
	for service, s := range r.services {
		if !glob(prefix, service) {
			continue
		}
		for lower, action := range s.actions {
			if glob(name, lower) {
				out = append(out, action)
			}
		}
	}
	slices.SortFunc(out, func(a, b Action) int { return cmp.Compare(a.String(), b.String()) })
	return out
}

// All returns all actions of AWS.
func (r *Reference) All() []Action { return r.Expand("*") }

// fits returns the resource types of an action that a statement's resource can name.
func (r *Reference) fits(a Action, resource string) []actionResource {
	var out []actionResource
	for _, t := range a.ResourceTypes {
		if resource == "*" || overlaps(resource, r.services[a.Service].resourceTypes[strings.ToLower(t.Name)].ARN) {
			out = append(out, t)
		}
	}
	return out
}

// onlyIfNamed are the global keys that a request has only where the reference names them for its action.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
var onlyIfNamed = []string{"aws:tagkeys", "aws:requesttag/tag-key", "aws:resourcetag/tag-key"}

// KeyType returns the type of a condition key in requests of an action on a resource, such as String or ArrayOfString. ok is
// false if such a request never has the key.
func (r *Reference) KeyType(a Action, resource, key string) (kind string, ok bool) {
	known := slices.Clone(a.ConditionKeys)
	for _, t := range r.fits(a, resource) {
		known = append(known, t.ConditionKeys...)
		known = append(known, r.services[a.Service].resourceTypes[strings.ToLower(t.Name)].ConditionKeys...)
	}
	for _, name := range known {
		if matchesKey(name, key) {
			return r.typeOf(a.Service, name)
		}
	}
	kind, ok = r.globals[strings.ToLower(key)]
	return kind, ok && !slices.Contains(onlyIfNamed, strings.ToLower(key))
}

// typeOf returns the type of a key by its name in the reference. A service may name the key of another one.
func (r *Reference) typeOf(service, name string) (string, bool) {
	prefix, _, _ := strings.Cut(name, ":")
	for _, s := range []string{service, prefix} {
		if k, ok := r.services[s].keys[strings.ToLower(name)]; ok {
			return k.Type, true
		}
	}
	kind, ok := r.globals[strings.ToLower(name)]
	return kind, ok
}

// matchesKey reports whether a key has the reference's form, in which ${…} is a variable part.
func matchesKey(form, key string) bool {
	form, key = strings.ToLower(form), strings.ToLower(key)
	before, rest, variable := strings.Cut(form, "${")
	if !variable {
		return form == key
	}
	_, after, _ := strings.Cut(rest, "}")
	inner, found := strings.CutPrefix(key, before)
	return found && strings.HasSuffix(inner, after) && len(inner) > len(after)
}

// Services returns the prefixes of all services.
func (r *Reference) Services() []string { return slices.Sorted(maps.Keys(r.services)) }
