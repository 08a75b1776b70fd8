package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// VaultRequest is one request from Vault's audit log.
type VaultRequest struct {
	Time        time.Time
	Operation   string // create, update, read, list, delete
	Path        string // relative to the namespace
	Namespace   string // "a/b/"; empty for the root one
	DisplayName string // of the token; empty for logins
	RemoteAddr  string
	Error       string // the reason of a refusal; empty if Vault accepted the request
}

// VaultRequests returns the requests in Vault's audit logs since a time, in order.
func (w *World) VaultRequests(since time.Time) ([]VaultRequest, error) {
	files, err := filepath.Glob(w.AuditLog)
	if err == nil && len(files) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("looking for Vault's audit logs %s: %w", w.AuditLog, err)
	}
	var requests []VaultRequest
	for _, file := range files {
		found, err := readAuditLog(file, since)
		if err != nil {
			return nil, err
		}
		requests = append(requests, found...)
	}
	slices.SortStableFunc(requests, func(a, b VaultRequest) int { return a.Time.Compare(b.Time) })
	return requests, nil
}

func readAuditLog(file string, since time.Time) ([]VaultRequest, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading Vault's audit log: %w", err)
	}
	var requests []VaultRequest
	for n, line := range bytes.Split(text, []byte("\n")) {
		// Vault may still be writing the last line, or was killed while it did.
		if len(line) == 0 {
			continue
		}
		var entry struct {
			Type, Error string
			Time        time.Time
			Auth        struct {
				DisplayName string `json:"display_name"`
			}
			Request struct {
				Operation, Path string
				RemoteAddress   string `json:"remote_address"`
				Namespace       struct{ Path string }
			}
		}
		if err := json.Unmarshal(line, &entry); err != nil {
			if n == bytes.Count(text, []byte("\n")) {
				continue
			}
			return nil, fmt.Errorf("reading line %d of Vault's audit log %s: %w", n+1, file, err)
		}
		if entry.Type == "request" && !entry.Time.Before(since) {
			requests = append(requests, VaultRequest{
				Time: entry.Time, Operation: entry.Request.Operation, Path: entry.Request.Path, Namespace: entry.Request.Namespace.Path,
				DisplayName: entry.Auth.DisplayName, RemoteAddr: entry.Request.RemoteAddress, Error: entry.Error,
			})
		}
	}
	return requests, nil
}
