// Package labtest has what the test packages with a world of their own share.
package labtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Run starts a world for a package three folders below the repository's root, runs its tests, and returns the exit code of
// TestMain. limit bounds the start. It sets world before the tests run.
func Run(m *testing.M, world **lab.World, limit time.Duration, o lab.Options) int {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	o.RepoRoot = filepath.Join("..", "..", "..")
	o.Progress = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	started, err := lab.Start(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*world = started
	code := m.Run()
	if err := started.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// CloseLater closes c when the test ends.
func CloseLater(t *testing.T, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Line returns a line that is closed at the end of the test.
func Line(t *testing.T, w *lab.World, o lab.LineOptions) *lab.Line {
	t.Helper()
	o.Name = strings.NewReplacer("/", "-", " ", "-", ",", "").Replace(fmt.Sprintf("%.60s-%s-%d", t.Name(), o.Name, time.Now().UnixNano()))
	l, err := w.Line(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	CloseLater(t, l)
	return l
}

// Variant returns a deployed function with some of its environment variables changed.
func Variant(t *testing.T, w *lab.World, function string, change map[string]string) *sandbox.Function {
	t.Helper()
	env, err := w.FunctionEnv(t.Context(), function)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(env, change)
	f := w.Stack.Functions[function]
	s := sandbox.NewFunction(sandbox.Options{
		Name: f.Name, ARN: f.ARN, Binary: filepath.Join(f.CodeDir, "bootstrap"), Env: env, MemoryMB: f.MemoryMB,
		Timeout: time.Duration(f.TimeoutSeconds) * time.Second, Log: filepath.Join(t.TempDir(), "log"),
	}, 4)
	CloseLater(t, s)
	return s
}

// Edited returns a copy of a folder of profiles after replacements of text: file, old, new.
func Edited(t *testing.T, profiles string, changes ...[3]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(profiles)); err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		path := filepath.Join(dir, filepath.FromSlash(c[0]))
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), c[1]) {
			t.Fatalf("%s does not contain %q (%v)", c[0], c[1], err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), c[1], c[2], 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Batch returns a batch in Lambda's form. Message n has the ID n.
func Batch(bodies ...[]byte) []byte {
	records := []map[string]string{}
	for n, body := range bodies {
		records = append(records, map[string]string{"messageId": fmt.Sprint(n), "body": string(body), "eventSource": "aws:sqs"})
	}
	payload, _ := json.Marshal(map[string]any{"Records": records}) // strings cannot fail
	return payload
}

// Deliver invokes a function with a batch and returns the indices of the messages that stay in the queue: the failed ones,
// or all if the invocation fails.
func Deliver(t *testing.T, f *sandbox.Function, bodies ...[]byte) (again []int, result sandbox.Result) {
	t.Helper()
	result, err := f.Invoke(t.Context(), Batch(bodies...))
	if err != nil {
		t.Fatal(err)
	}
	again = []int{}
	if result.Err() != nil {
		for n := range bodies {
			again = append(again, n)
		}
		return again, result
	}
	var answer struct {
		BatchItemFailures []struct {
			ItemIdentifier int `json:",string"`
		}
	}
	if err := json.Unmarshal(result.Payload, &answer); err != nil {
		t.Fatalf("the answer %s: %v", result.Payload, err)
	}
	for _, failed := range answer.BatchItemFailures {
		again = append(again, failed.ItemIdentifier)
	}
	slices.Sort(again)
	return again, result
}

// ExpireLease expires a lease in the ledger, because a test cannot wait its 75 seconds a hundred times. It reports whether
// there was a lease. Do not use it on the lease of a running process, which goes by its own clock.
func ExpireLease(t *testing.T, w *lab.World, id string) bool {
	t.Helper()
	_, err := w.Dynamo.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName:                 aws.String(w.Stack.Tables["Table"]),
		Key:                       map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: ledger.RecordKey(id)}},
		UpdateExpression:          aws.String("SET lease_expires_at = :past"),
		ConditionExpression:       aws.String("attribute_exists(lease_owner)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":past": &types.AttributeValueMemberN{Value: "1"}},
	})
	if err != nil && !strings.Contains(err.Error(), "ConditionalCheckFailed") {
		t.Fatal(err)
	}
	return err == nil
}
