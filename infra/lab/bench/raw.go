package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// The protocols to try. Vault offers both.
const (
	http1 = "HTTP/1.1"
	http2 = "HTTP/2"
)

// client describes a bare HTTP client of Vault.
type client struct {
	Protocol string
	AtOnce   int
}

func (c client) String() string { return fmt.Sprintf("%s, %d at once", c.Protocol, c.AtOnce) }

// clients returns the clients to try. The fastest sets the raw limit.
func clients() []client {
	var all []client
	for _, protocol := range []string{http1, http2} {
		for _, atOnce := range []int{4, 8, 16} {
			all = append(all, client{Protocol: protocol, AtOnce: atOnce})
		}
	}
	return all
}

// vaultHTTP calls Vault by bare HTTP with a token: no retries, and no decoding beyond the caller's target.
type vaultHTTP struct {
	client
	base, token string
	http        *http.Client
}

func newVaultHTTP(p place, c client) (*vaultHTTP, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(p.VaultCA)) {
		return nil, errors.New("reading Vault's CA: no certificate in it")
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(c.Protocol == http1)
	protocols.SetHTTP2(c.Protocol == http2)
	return &vaultHTTP{client: c, base: p.VaultAddr + "/v1/", token: p.Token, http: &http.Client{Transport: &http.Transport{
		Protocols: protocols, MaxIdleConnsPerHost: c.AtOnce, DisableCompression: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}}, nil
}

func (v *vaultHTTP) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, v.base+path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Vault-Token", v.token)
	return v.http.Do(request)
}

// call makes one request and returns the body of the response. A status of 300 or more is an error.
func (v *vaultHTTP) call(ctx context.Context, method, path string, fields map[string]any) ([]byte, error) {
	var body bytes.Buffer
	if fields != nil {
		if err := json.NewEncoder(&body).Encode(fields); err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	response, err := v.send(ctx, method, path, &body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("status %d: %s", response.StatusCode, text)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return text, nil
}

// get decodes a path's response into a value. A 404, which is also Vault's answer for an empty list, leaves it unchanged.
func (v *vaultHTTP) get(ctx context.Context, path string, into any) error {
	response, err := v.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotFound {
		return nil
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("reading %s: status %d", path, response.StatusCode)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}

// lists reads the lists of a comparison concurrently and decodes their names.
func (v *vaultHTTP) lists(ctx context.Context, n int) error {
	group, ctx := errgroup.WithContext(ctx)
	for folder, atLeast := range map[string]int{
		grant.PolicyFolder: n, grant.AuthRoleFolder(authMount): n, grant.PKIRoleFolder(pkiMount): n, grant.AccessListFolder(authMount): 0,
	} {
		group.Go(func() error {
			var page struct {
				Data struct{ Keys []string }
			}
			err := v.get(ctx, folder+"?list=true", &page)
			if got := len(page.Data.Keys); err == nil && got < atLeast {
				err = fmt.Errorf("the list of %s has %d names, want %d", folder, got, n)
			}
			return err
		})
	}
	group.Go(func() error {
		var page struct {
			Data struct {
				Info map[string]struct {
					Name   string
					Entity string `json:"canonical_id"`
				} `json:"key_info"`
			}
		}
		const folder = "identity/entity-alias/id"
		err := v.get(ctx, folder+"?list=true", &page)
		if got := len(page.Data.Info); err == nil && got < n {
			err = fmt.Errorf("the list of %s has %d aliases, want %d", folder, got, n)
		}
		return err
	})
	return group.Wait()
}

// reads reads every object of n instances whole and decodes none.
func (v *vaultHTTP) reads(ctx context.Context, n int) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range v.AtOnce {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n*objectsEach {
					return nil
				}
				if err := v.read(ctx, pathsOf(i / objectsEach)[i%objectsEach]); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

func (v *vaultHTTP) read(ctx context.Context, path string) error {
	response, err := v.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	defer response.Body.Close()
	size, err := io.Copy(io.Discard, response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || size == 0) {
		err = fmt.Errorf("status %d and %d bytes", response.StatusCode, size)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}
