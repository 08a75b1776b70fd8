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
		RequestItems  map[string]struct{ Keys []item }
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
		found, err := c.get([]item{in.Key})
		if err != nil || len(found) == 0 {
			return map[string]any{}, err
		}
		return map[string]any{"Item": found[0]}, nil
	case "BatchGetItem":
		found := map[string][]item{}
		for table, asked := range in.RequestItems {
			var err error
			if found[table], err = c.get(asked.Keys); err != nil {
				return nil, err
			}
		}
		return map[string]any{"Responses": found, "UnprocessedKeys": map[string]any{}}, nil
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

// get returns the items of the keys that have one.
func (c *cloud) get(keys []item) ([]item, error) {
	found := []item{}
	for _, key := range keys {
		pk, err := keyOf(key)
		if err != nil {
			return nil, err
		}
		if i, is := c.items[pk]; is {
			found = append(found, i)
		}
	}
	return found, nil
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
