package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"
)

// List returns the names in a folder, nil for an empty one. It fails where nothing is mounted, with an error that wraps
// ErrNotMounted: a caller may delete objects that a list lacks, so a wrong path must not look like an empty folder.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	var names []string
	err := c.list(ctx, path, func(body io.Reader) error {
		answer, err := io.ReadAll(body)
		if err == nil {
			names, err = namesIn(string(answer))
		}
		return err
	})
	return names, err
}

// namesIn returns the names in the answer to a list. Names without a character that JSON escapes share the memory of the answer:
// encoding/json would copy each, which takes it several times as long.
func namesIn(answer string) ([]string, error) {
	if names, ok := plainNames(answer); ok {
		return names, nil
	}
	var page struct {
		Data struct{ Keys []string }
	}
	if err := json.Unmarshal([]byte(answer), &page); err != nil {
		return nil, err
	}
	if page.Data.Keys == nil { // a wrapped answer, for example, which shows nothing
		return nil, errors.New("the answer has no names")
	}
	return page.Data.Keys, nil
}

// plainNames is namesIn for an answer in the form in which Vault writes most. ok is false for any other form.
func plainNames(answer string) (names []string, ok bool) {
	_, list, ok := strings.Cut(answer, `"data":{"keys":[`) // not in a text: its quotes would be escaped
	end := strings.IndexByte(list, ']')
	isWhole := strings.HasSuffix(strings.TrimSpace(answer), "}")
	if !ok || !isWhole || end < 0 || strings.IndexByte(list[:end], '\\') >= 0 {
		return nil, false
	}
	list = list[:end]
	names = make([]string, 0, strings.Count(list, ",")+1)
	for more := list != ""; more; {
		var name string
		if list, ok = strings.CutPrefix(list, `"`); !ok {
			return nil, false
		}
		if name, list, ok = strings.Cut(list, `"`); !ok { // the ] was in a name
			return nil, false
		}
		names = append(names, name)
		if list, more = strings.CutPrefix(list, ","); !more && list != "" {
			return nil, false
		}
	}
	return names, true
}

// Issuer is an issuer of a PKI mount.
type Issuer struct {
	ID, Name  string
	IsDefault *bool // nil if the server does not say so
}

// Issuers returns the issuers of a PKI mount, in no order; none for a mount without one. It needs no right.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#list-issuers
func (c *Client) Issuers(ctx context.Context, mount string) ([]Issuer, error) {
	var page struct {
		Data struct {
			Keys []string
			Info map[string]struct {
				Name      string `json:"issuer_name"`
				IsDefault *bool  `json:"is_default"`
			} `json:"key_info"`
		}
	}
	if err := c.list(ctx, mount+"/issuers", into(&page)); err != nil {
		return nil, err
	}
	issuers := make([]Issuer, len(page.Data.Keys))
	for i, id := range page.Data.Keys {
		info := page.Data.Info[id]
		issuers[i] = Issuer{ID: id, Name: info.Name, IsDefault: info.IsDefault}
	}
	return issuers, nil
}

// list passes the whole answer to decode: Vault lists without pages. decode is not called for an empty folder. The api client's own
// decoding would make a map of a map for each name.
func (c *Client) list(ctx context.Context, path string, decode func(io.Reader) error) error {
	return c.do(ctx, "listing", path, func(ctx context.Context, v *Conn) error {
		resp, err := v.read(ctx, path, map[string][]string{"list": {"true"}})
		if resp != nil {
			defer func() { _ = resp.Body.Close() }() // after an error, or read as far as needed
		}
		if isEmptyFolder(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := decode(resp.Body); err != nil {
			return fmt.Errorf("decoding the answer: %w", err)
		}
		return nil
	})
}

// into returns a function that decodes an answer into a value.
func into(value any) func(io.Reader) error {
	return func(body io.Reader) error { return json.NewDecoder(body).Decode(value) }
}

// isEmptyFolder reports whether Vault answered that a folder is empty: a 404 without a text. A 404 with a text means that
// nothing is mounted there.
func isEmptyFolder(err error) bool {
	var r *api.ResponseError
	return errors.As(err, &r) && r.StatusCode == http.StatusNotFound && strings.Join(r.Errors, "") == ""
}
