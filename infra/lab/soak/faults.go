package soak

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// kind is one way in which a service fails.
type kind struct {
	name  string
	taps  func(lab.Taps) *tap.Tap
	match func(tap.Call) bool
	fault tap.Fault
}

func anyCall(tap.Call) bool { return true }

func service(name string) func(tap.Call) bool {
	return func(c tap.Call) bool { return c.Service == name }
}

func toVault(t lab.Taps) *tap.Tap  { return t.Vault }
func toDynamo(t lab.Taps) *tap.Tap { return t.Dynamo }
func toAWS(t lab.Taps) *tap.Tap    { return t.AWS }

func answer(status int, contentType, body string) tap.Fault {
	return tap.Fault{Status: status, Header: http.Header{"Content-Type": {contentType}}, Body: []byte(body)}
}

func vaultSays(status int, why string) tap.Fault {
	return answer(status, "application/json", `{"errors":["`+why+`"]}`)
}

func dynamoSays(status int, code string) tap.Fault {
	return answer(status, "application/x-amz-json-1.0", `{"__type":"com.amazonaws.dynamodb.v20120810#`+code+`","message":"soak"}`)
}

const throttledXML = `<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message></Error></Errors><RequestID>x</RequestID></Response>`

const sealed = "Vault sealed (503)"

// kinds returns the faults that are injected, one after the other.
func kinds() []kind {
	afterwards := vaultSays(http.StatusInternalServerError, "the answer is lost")
	afterwards.Forward = true
	throttled := vaultSays(http.StatusTooManyRequests, "rate limit")
	throttled.Header.Set("Retry-After", "1")
	return []kind{
		{sealed, toVault, anyCall, vaultSays(http.StatusServiceUnavailable, "Vault is sealed")},
		{"Vault throttles (429)", toVault, anyCall, throttled},
		{"Vault took effect, answered 500", toVault, anyCall, afterwards},
		{"Vault cuts the connection", toVault, anyCall, tap.Fault{CutBefore: true}},
		{"Vault took effect, connection cut", toVault, anyCall, tap.Fault{CutAfter: true}},
		{"Vault forgets the token (403)", toVault, func(c tap.Call) bool { return !strings.HasSuffix(c.Path, "/login") }, vaultSays(http.StatusForbidden, "permission denied")},
		{"Vault slow (1.5 s)", toVault, anyCall, tap.Fault{Delay: 1500 * time.Millisecond}},
		{"DynamoDB throttles", toDynamo, anyCall, dynamoSays(http.StatusBadRequest, "ProvisionedThroughputExceededException")},
		{"DynamoDB internal error", toDynamo, anyCall, dynamoSays(http.StatusInternalServerError, "InternalServerError")},
		{"DynamoDB took effect, connection cut", toDynamo, anyCall, tap.Fault{CutAfter: true}},
		{"EC2 throttles", toAWS, service("ec2"), answer(http.StatusServiceUnavailable, "text/xml", throttledXML)},
		{"EC2 cuts the connection", toAWS, service("ec2"), tap.Fault{CutBefore: true}},
		{"IAM throttles", toAWS, service("iam"), answer(http.StatusBadRequest, "text/xml", `<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>`)},
		{"STS throttles", toAWS, service("sts"), answer(http.StatusBadRequest, "text/xml", `<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>`)},
		{"Secrets Manager down", toAWS, service("secretsmanager"), answer(http.StatusInternalServerError, "application/x-amz-json-1.1", `{"__type":"InternalServiceError"}`)},
	}
}

// injector injects one kind of fault after the other, and counts them.
type injector struct {
	world *lab.World
	rng   *rand.Rand

	mu     sync.Mutex
	counts map[string]int
	kills  int
}

const (
	// kindTime is the duration of one kind of fault.
	kindTime = 4 * time.Second
	// share is the part of the matching calls that fail. Some succeed, so that work fails at every step.
	share = 0.25
)

// run injects faults until the context ends, and then removes them.
func (w *injector) run(ctx context.Context) {
	all := kinds()
	if w.world.Cluster != nil { // whose leader is really sealed
		all = slices.DeleteFunc(all, func(k kind) bool { return k.name == sealed })
	}
	defer w.clear()
	for n := 0; ; n++ {
		if n%len(all) == 0 {
			w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
		w.clear()
		k := all[n%len(all)]
		seed := w.rng.Uint64()
		var mu sync.Mutex
		dice := rand.New(rand.NewPCG(seed, seed))
		k.taps(w.world.Taps).SetFault(func(c tap.Call) *tap.Fault {
			mu.Lock()
			hit := dice.Float64() < share
			mu.Unlock()
			if !hit || !k.match(c) {
				return nil
			}
			w.count(k.name)
			fault := k.fault
			return &fault
		})
		if n%3 == 2 { // every third kind also kills the sandboxes during their work
			for _, f := range []string{provision, deprovision} {
				if w.world.Functions[f].Kill() == nil {
					w.mu.Lock()
					w.kills++
					w.mu.Unlock()
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(kindTime):
		}
	}
}

func (w *injector) count(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[name]++
}

func (w *injector) clear() {
	for _, t := range []*tap.Tap{w.world.Taps.Vault, w.world.Taps.Dynamo, w.world.Taps.AWS} {
		t.SetFault(nil)
		t.Reset() // frees the recorded calls
	}
}

// summary returns a line for each kind of fault with its count, sorted by name, and the sum.
func (w *injector) summary() (lines []string, total int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(w.counts)) {
		lines = append(lines, line(name, w.counts[name]))
		total += w.counts[name]
	}
	return lines, total
}
