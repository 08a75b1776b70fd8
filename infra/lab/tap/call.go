package tap

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Call is one request.
type Call struct {
	Time      time.Time
	Service   string // ec2, dynamodb, sqs, sts, ...; "vault" for Vault
	Region    string // of the signature, "" if unsigned
	AccessKey string // ID of the key that signed, "" if unsigned
	Action    string // DescribeInstances, PutItem, ...; for Vault "PUT auth/aws/login"
	Method    string
	Path      string
	Body      []byte // of the request
	Status    int    // 0 while in flight and when the connection was cut
	Duration  time.Duration
	Faulted   bool // the fault hook answered
}

// Fault changes the course of a call. A fault with only a Delay forwards the call
// late.
type Fault struct {
	Delay     time.Duration // wait first
	Status    int           // answer with this status, Header and Body ...
	Header    http.Header
	Body      []byte
	Forward   bool // ... after the server has carried out the call
	CutBefore bool // close the connection; the server does not see the call
	CutAfter  bool // close the connection after the server carried out the call
}

// AutoScaling returns the answer to a call of Auto Scaling about waits of lifecycle hooks, which moto does not have. result is the XML
// below the call's result.
func AutoScaling(c Call, result string) *Fault {
	const form = `<%[1]sResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>`
	return &Fault{Status: http.StatusOK, Body: fmt.Appendf(nil, form, c.Action, result)}
}

// identify returns the service and action of a request, and its signature's key and region.
func identify(r *http.Request, body []byte, service string) Call {
	c := Call{Time: time.Now(), Service: service, Method: r.Method, Path: r.URL.Path, Body: body}
	if _, scope, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		// key/date/region/service/aws4_request
		fields := strings.Split(strings.SplitN(scope, ",", 2)[0], "/")
		if len(fields) == 5 {
			c.AccessKey, c.Region = fields[0], fields[2]
			if c.Service == "" {
				c.Service = fields[3]
			}
		}
	}
	if c.Service == "" && strings.HasPrefix(c.Path, "/v1/") {
		c.Service = "vault"
	}
	c.Action = action(r, body, c.Service)
	return c
}

func action(r *http.Request, body []byte, service string) string {
	if service == "vault" {
		method := r.Method
		// Vault's own client sends a list this way.
		if method == http.MethodGet && r.URL.Query().Get("list") == "true" {
			method = "LIST"
		}
		return method + " " + strings.TrimPrefix(r.URL.Path, "/v1/")
	}
	// "DynamoDB_20120810.PutItem", "AmazonSQS.ReceiveMessage", "AWSEvents.PutEvents"
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		return target[strings.LastIndex(target, ".")+1:]
	}
	if a := r.URL.Query().Get("Action"); a != "" {
		return a
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/x-www-form-urlencoded" {
		// An unreadable form names no action; the server reports the error.
		if form, err := url.ParseQuery(string(body)); err == nil && form.Get("Action") != "" {
			return form.Get("Action")
		}
	}
	return r.Method + " " + r.URL.Path
}
