package stack

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

var corpusFolder = filepath.Join("testdata", "events")

// column is a stack of the tables in testdata/events/README.md.
type column struct {
	name       string
	template   string
	parameters map[string]string
}

func columns() []column {
	stack := filepath.Join(root, "template.yaml")
	early, all := maps.Clone(bare), maps.Clone(full)
	early["DeprovisionOn"] = "shutting-down"
	all["HookPrefix"] = "blue-"
	tagged := member()
	tagged["ReadyTag"], tagged["HookPrefix"] = all["ReadyTag"], all["HookPrefix"]
	return []column{
		{"plain", stack, bare}, {"early", stack, early}, {"full", stack, all},
		{"member", memberTemplate, member()}, {"member full", memberTemplate, tagged},
	}
}

// patterns returns the patterns of a stack's rules by logical ID, with the parameters' values in them. Scheduled rules have
// none.
func patterns(t *testing.T, c column) map[string]map[string]any {
	t.Helper()
	template := shared(t, c.template)
	d, err := newDecider(template, c.parameters, map[string]string{"AWS::Region": region, "AWS::AccountId": parts.AccountID, "AWS::Partition": "aws"})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]any{}
	for id, rule := range each(t, resolve(t, template, c.parameters), "AWS::Events::Rule") {
		if rule["State"] != nil && rule["State"] != "ENABLED" {
			t.Errorf("%s: rule %s is %v", c.name, id, rule["State"])
		}
		if rule["EventPattern"] == nil {
			continue
		}
		pattern, err := literal(d, rule["EventPattern"])
		if err != nil {
			t.Fatalf("%s: the pattern of %s: %v", c.name, id, err)
		}
		out[id] = object(pattern)
	}
	return out
}

// literal returns v with each function replaced by its value.
func literal(d *decider, v any) (any, error) {
	if _, _, ok := intrinsic(v); ok {
		return d.value(v)
	}
	var err error
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, entry := range v {
			if out[key], err = literal(d, entry); err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, entry := range v {
			if out[i], err = literal(d, entry); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return v, nil
}

// published is a row of the tables: an event and the rules that it matches.
type published struct {
	name  string // the file and the changes
	event map[string]any
	rules map[string][]string // by column, logical IDs, sorted
}

var (
	linkedFile = regexp.MustCompile(`\[[^\]]+\]\(([^)]+\.json)\)`)
	codeSpan   = regexp.MustCompile("`([^`]+)`")
)

// corpus returns the rows of all tables with the stacks as columns, and the sources by file.
func corpus(t *testing.T) (rows []published, sources map[string]string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(corpusFolder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	sources = map[string]string{}
	var head []string
	for line := range strings.SplitSeq(string(page), "\n") {
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "| "), " |"), " | ")
		file := linkedFile.FindStringSubmatch(cells[0])
		switch {
		case !strings.HasPrefix(line, "|"):
		case file == nil && !strings.HasPrefix(line, "| ---"):
			head = cells
		case file != nil && len(head) == 2:
			sources[file[1]] = cells[1]
		case file != nil:
			rows = append(rows, readRow(t, file[1], head, cells))
		}
	}
	if len(rows) < 80 || len(sources) < 25 {
		t.Fatalf("read %d rows and %d sources of the tables: they are read wrongly", len(rows), len(sources))
	}
	return rows, sources
}

func readRow(t *testing.T, file string, head, cells []string) published {
	t.Helper()
	if len(cells) != len(head) {
		t.Fatalf("the row of %s has %d cells, its table has %d: %q", file, len(cells), len(head), cells)
	}
	row := published{name: strings.TrimSpace(strings.TrimLeft(file, "./") + " " + cells[1]), rules: map[string][]string{}}
	data, err := os.ReadFile(filepath.Join(corpusFolder, file))
	if err == nil {
		err = json.Unmarshal(data, &row.event)
	}
	for _, change := range codeSpan.FindAllStringSubmatch(cells[1], -1) {
		if err == nil {
			err = set(row.event, change[1])
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", row.name, err)
	}
	for i, name := range head[2:] {
		row.rules[name] = []string{}
		for rule := range strings.FieldsSeq(strings.ReplaceAll(cells[2+i], ",", " ")) {
			if rule != "–" {
				row.rules[name] = append(row.rules[name], rule+"Rule")
			}
		}
		slices.Sort(row.rules[name])
	}
	return row
}

// set changes a field of an event: "detail.state: \"running\"".
func set(event map[string]any, change string) error {
	path, text, found := strings.Cut(change, ": ")
	var value any
	if err := json.Unmarshal([]byte(text), &value); !found || err != nil {
		return fmt.Errorf("the change %s is not a field, a colon and JSON: %w", change, err)
	}
	fields := strings.Split(path, ".")
	for _, field := range fields[:len(fields)-1] {
		if event = object(event[field]); event == nil {
			return fmt.Errorf("the change %s: the event has no object %s", change, field)
		}
	}
	event[fields[len(fields)-1]] = value
	return nil
}

// answers returns which events each pattern matches, by this package's matcher and by moto's in one process. It fails for a
// pattern and an event about which the two disagree.
func answers(t *testing.T, patterns, events map[string]map[string]any) map[string][]string {
	t.Helper()
	theirs := motoMatches(t, patterns, events)
	ours := map[string][]string{}
	for rule, pattern := range patterns {
		for event, body := range events {
			fits, err := matches(pattern, body)
			if err != nil {
				t.Fatalf("rule %s, event %s: %v", rule, event, err)
			}
			if moto := slices.Contains(theirs[rule], event); fits != moto {
				t.Errorf("the matchers disagree: rule %s matches event %s: %v by this package, %v by moto", rule, event, fits, moto)
			}
			if fits {
				ours[rule] = append(ours[rule], event)
			}
		}
	}
	return ours
}

func motoMatches(t *testing.T, patterns, events map[string]map[string]any) map[string][]string {
	t.Helper()
	script, err := os.ReadFile(filepath.Join("testdata", "match.py"))
	if err != nil {
		t.Fatal(err)
	}
	out := python(t, text(t, map[string]any{"patterns": patterns, "events": events}), string(script))
	matched := map[string][]string{}
	if err := json.Unmarshal(out, &matched); err != nil {
		t.Fatalf("reading moto's matches: %v\n%s", err, out)
	}
	return matched
}
