package storm

import (
	"encoding/json"
	"fmt"
	"slices"
)

// item is an item in DynamoDB's JSON, undecoded.
type item = json.RawMessage

// table answers the calls of DynamoDB that the functions make, from memory. It ignores conditions: in a measured storm every
// write is its instance's first of the kind, and the content of the table is checked afterwards.
// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html
func (c *cloud) table(action string, body []byte) (map[string]any, error) {
	var in struct {
		Key           item
		Item          item
		TransactItems []struct {
			Put    *struct{ Item item }
			Delete *struct{ Key item }
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("reading a %s: %w", action, err)
	}
	switch action {
	case "GetItem":
		pk, err := keyOf(in.Key)
		if found, is := c.items[pk]; err == nil && is {
			return map[string]any{"Item": found}, nil
		}
		return map[string]any{}, err
	case "PutItem":
		return map[string]any{}, c.store(in.Item)
	case "TransactWriteItems":
		for _, part := range in.TransactItems {
			switch {
			case part.Put != nil:
				if err := c.store(part.Put.Item); err != nil {
					return nil, err
				}
			case part.Delete != nil:
				pk, err := keyOf(part.Delete.Key)
				if err != nil {
					return nil, err
				}
				delete(c.items, pk)
			}
		}
		return map[string]any{}, nil
	}
	var all []item // a scan, in one page
	for _, i := range c.items {
		all = append(all, i)
	}
	return map[string]any{"Items": all, "Count": len(all), "ScannedCount": len(all)}, nil
}

func (c *cloud) store(i item) error {
	pk, err := keyOf(i)
	if err == nil {
		c.items[pk] = slices.Clone(i)
	}
	return err
}

// keyOf returns the value of the item's partition key.
func keyOf(i item) (string, error) {
	var key struct {
		PK struct{ S string } `json:"pk"`
	}
	if err := json.Unmarshal(i, &key); err != nil || key.PK.S == "" {
		return "", fmt.Errorf("an item has no key: %.200s (%w)", i, err)
	}
	return key.PK.S, nil
}
