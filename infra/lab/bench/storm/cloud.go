package storm

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// cloud stands in for EC2, IAM, EventBridge and SQS, and for DynamoDB where DynamoDB Local would take too much of the cores.
// It answers the calls of the functions and of the lab's poller from tables in memory. It checks no signature, and a
// message that was received and not deleted is not delivered again.
type cloud struct {
	URL    string
	server *http.Server

	mu        sync.Mutex
	instances map[string]*machine
	queues    map[string]*messages
	items     map[string]item // of the ledger, by key; empty if DynamoDB Local holds the ledger
	calls     map[string]int  // by action
	// lastReceive is the latest answer to the poller, which makes one request at a time.
	lastReceive struct {
		asked  string
		answer map[string]any
	}
}

// machine is an instance as EC2 shows it.
type machine struct {
	fleet.Instance
	state string
}

func startCloud(ctx context.Context) (*cloud, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for EC2, IAM, SQS and EventBridge: %w", err)
	}
	c := &cloud{
		URL: "http://" + listener.Addr().String(), instances: map[string]*machine{}, queues: map[string]*messages{}, calls: map[string]int{}, items: map[string]item{},
	}
	c.server = &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = c.server.Serve(listener) }() // ends with close
	return c, nil
}

func (c *cloud) close() error { return c.server.Close() }

// add adds running instances.
func (c *cloud) add(instances ...fleet.Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range instances {
		c.instances[i.ID] = &machine{Instance: i, state: "running"}
	}
}

// terminate sets instances to terminated.
func (c *cloud) terminate(instances ...fleet.Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range instances {
		c.instances[i.ID].state = "terminated"
	}
}

// count returns the number of calls of an action, without the SDK's own retries.
func (c *cloud) count(action string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[action]
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	form, err := url.ParseQuery(string(body))
	action := form.Get("Action")
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		action, err = target[strings.LastIndexByte(target, '.')+1:], nil
	}
	if action == "ReceiveMessage" {
		c.await(r.Context(), body)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A retry of the SDK's after a broken connection is not another call.
	if strings.HasPrefix(r.Header.Get("Amz-Sdk-Request"), "attempt=1;") {
		c.calls[action]++
	}
	var answer any
	switch action {
	case "DescribeInstances":
		answer = c.describe(form)
	case "GetInstanceProfile":
		answer = instanceProfile(form.Get("InstanceProfileName"))
	case "PutEvents":
		answer = accepted(body)
	case "ReceiveMessage":
		// A retry after a broken connection gets the same messages.
		asked := r.Header.Get("Amz-Sdk-Invocation-Id")
		if asked != c.lastReceive.asked {
			c.lastReceive.asked = asked
			c.lastReceive.answer, err = c.queue(action, body)
		}
		answer = c.lastReceive.answer
	case "DeleteMessageBatch", "GetQueueAttributes":
		answer, err = c.queue(action, body)
	case "GetItem", "BatchGetItem", "PutItem", "TransactWriteItems", "Scan":
		answer, err = c.table(action, body)
	default:
		err = fmt.Errorf("the bench's cloud does not implement %q", action)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	write(w, answer)
}

// write answers with JSON for a map and with XML for anything else, in one write. A write error means that the client left.
func write(w http.ResponseWriter, answer any) {
	var text []byte
	kind := "text/xml"
	if _, isMap := answer.(map[string]any); isMap {
		text, _ = json.Marshal(answer) // strings and numbers only: cannot fail
		kind = "application/x-amz-json-1.0"
	} else {
		text, _ = xml.Marshal(answer)
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text)
}

// accepted returns EventBridge's answer to accepted events.
func accepted(body []byte) map[string]any {
	var in struct{ Entries []json.RawMessage }
	_ = json.Unmarshal(body, &in) // an unreadable body has no entries
	entries := make([]map[string]string, len(in.Entries))
	for i := range entries {
		entries[i] = map[string]string{"EventId": fmt.Sprint(i)}
	}
	return map[string]any{"FailedEntryCount": 0, "Entries": entries}
}
