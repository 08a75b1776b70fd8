package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// VaultRequest is one request from Vault's audit log.
type VaultRequest struct {
	Time        time.Time
	Operation   string // create, update, read, list, delete
	Path        string
	DisplayName string // of the token; empty for logins
	RemoteAddr  string
	Error       string // the reason of a refusal; empty if Vault accepted the request
}

// VaultRequests returns the requests in Vault's audit log since a time, in order.
func (w *World) VaultRequests(since time.Time) ([]VaultRequest, error) {
	text, err := os.ReadFile(w.AuditLog)
	if err != nil {
		return nil, fmt.Errorf("reading Vault's audit log: %w", err)
	}
	var requests []VaultRequest
	for n, line := range bytes.Split(text, []byte("\n")) {
		// Vault may still be writing the last line.
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
			}
		}
		if err := json.Unmarshal(line, &entry); err != nil {
			if n == bytes.Count(text, []byte("\n")) {
				continue
			}
			return nil, fmt.Errorf("reading line %d of Vault's audit log %s: %w", n+1, w.AuditLog, err)
		}
		if entry.Type == "request" && !entry.Time.Before(since) {
			requests = append(requests, VaultRequest{
				Time: entry.Time, Operation: entry.Request.Operation, Path: entry.Request.Path,
				DisplayName: entry.Auth.DisplayName, RemoteAddr: entry.Request.RemoteAddress, Error: entry.Error,
			})
		}
	}
	return requests, nil
}
