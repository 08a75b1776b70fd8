package tap

import (
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/awsclient"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

func workspace(t *testing.T) *parts.Workspace {
	t.Helper()
	w, err := parts.NewWorkspace("../../..", "", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func started(t *testing.T, o Options) *Tap {
	t.Helper()
	tap, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tap.Close() })
	return tap
}

func TestTap_RecordsAndDisturbsCalls(t *testing.T) {
	moto, err := parts.StartMoto(t.Context(), workspace(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { moto.Process.Stop() })
	tap := started(t, Options{Upstream: moto.URL})
	cfg := awsclient.Config(tap.URL, "eu-central-1")
	cfg.RetryMaxAttempts = 1
	ctx := t.Context()
	instances := ec2.NewFromConfig(cfg)

	t.Run("names service and action of every protocol that the functions use", func(t *testing.T) {
		tap.Reset()
		steps := []struct {
			service, action string
			call            func() error
		}{
			{"ec2", "DescribeInstances", func() error {
				_, err := instances.DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
				return err
			}},
			{"iam", "ListRoles", func() error { _, err := iam.NewFromConfig(cfg).ListRoles(ctx, nil); return err }},
			{"sts", "GetCallerIdentity", func() error { _, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, nil); return err }},
			{"sqs", "ListQueues", func() error { _, err := sqs.NewFromConfig(cfg).ListQueues(ctx, nil); return err }},
			{"events", "ListRules", func() error { _, err := eventbridge.NewFromConfig(cfg).ListRules(ctx, nil); return err }},
			{"secretsmanager", "ListSecrets", func() error { _, err := secretsmanager.NewFromConfig(cfg).ListSecrets(ctx, nil); return err }},
			{"dynamodb", "ListTables", func() error { _, err := dynamodb.NewFromConfig(cfg).ListTables(ctx, nil); return err }},
		}
		for _, s := range steps {
			if err := s.call(); err != nil {
				t.Fatalf("%s %s through the tap: %v", s.service, s.action, err)
			}
			if n := tap.Count(s.service, s.action); n != 1 {
				t.Errorf("expected one call %s %s, recorded: %+v", s.service, s.action, tap.Calls())
			}
		}
		calls := tap.Calls()
		if len(calls) != len(steps) || calls[0].Status != 200 || calls[0].Region != "eu-central-1" || calls[0].AccessKey == "" || calls[0].Duration <= 0 {
			t.Errorf("expected %d finished calls, seen %+v", len(steps), calls)
		}
	})

	t.Run("a throttle that ends is absorbed by the SDK, and the server saw only the last try", func(t *testing.T) {
		var tries atomic.Int32
		tap.SetFault(func(c Call) *Fault {
			if c.Action != "DescribeInstances" || tries.Add(1) > 2 {
				return nil
			}
			return &Fault{Status: 503, Body: []byte(`<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>m</Message></Error></Errors><RequestID>x</RequestID></Response>`)}
		})
		defer tap.SetFault(nil)
		patient := cfg.Copy()
		patient.RetryMaxAttempts = 3
		if _, err := ec2.NewFromConfig(patient).DescribeInstances(ctx, &ec2.DescribeInstancesInput{}); err != nil {
			t.Errorf("the third try should have worked: %v", err)
		}
		tries.Store(0)
		_, err := instances.DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
		var api smithy.APIError
		if !errors.As(err, &api) || api.ErrorCode() != "RequestLimitExceeded" {
			t.Errorf("a single try should see the throttle, seen %v", err)
		}
	})

	t.Run("after a cut before, the server does not see the call; a cut after loses only the answer", func(t *testing.T) {
		queues := sqs.NewFromConfig(cfg)
		for name, c := range map[string]struct {
			fault Fault
			made  bool
		}{
			"cut-before": {Fault{CutBefore: true}, false},
			"cut-after":  {Fault{CutAfter: true}, true},
			"answered":   {Fault{Status: 500}, false},
			"forwarded":  {Fault{Status: 500, Forward: true}, true},
		} {
			tap.SetFault(func(Call) *Fault { return &c.fault })
			_, err := queues.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name)})
			tap.SetFault(nil)
			if err == nil {
				t.Errorf("%s: the client should have seen an error", name)
			}
			_, err = queues.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(name)})
			if made := err == nil; made != c.made {
				t.Errorf("%s: queue made: %v, expected %v (%v)", name, made, c.made, err)
			}
		}
	})

	t.Run("a delay alone forwards the call late", func(t *testing.T) {
		tap.SetFault(func(Call) *Fault { return &Fault{Delay: 300 * time.Millisecond} })
		defer tap.SetFault(nil)
		begun := time.Now()
		if _, err := instances.DescribeInstances(ctx, &ec2.DescribeInstancesInput{}); err != nil || time.Since(begun) < 300*time.Millisecond {
			t.Errorf("expected a good answer after 0.3 s, seen %v after %s", err, time.Since(begun))
		}
	})
}

func TestTap_OfVaultSpeaksTLSBothWays(t *testing.T) {
	v, err := vaultserver.Start(t.Context(), workspace(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Process.Stop() })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(v.CAPEM))
	serving, ca, err := LoopbackTLS()
	if err != nil {
		t.Fatal(err)
	}
	tap := started(t, Options{Upstream: v.Address, RootCAs: roots, TLS: serving})

	cfg := vaultapi.DefaultConfig()
	cfg.Address, cfg.MaxRetries = tap.URL, 0
	// Both CAs in one bundle, as the functions get them.
	if err := cfg.ConfigureTLS(&vaultapi.TLSConfig{CACertBytes: []byte(v.CAPEM + ca)}); err != nil {
		t.Fatal(err)
	}
	client, err := vaultapi.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(v.RootToken)
	if err := client.Sys().PutPolicyWithContext(t.Context(), "tried", `path "x" { capabilities = ["read"] }`); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Logical().ListWithContext(t.Context(), "sys/policies/acl"); err != nil {
		t.Fatal(err)
	}
	if tap.Count("vault", "PUT sys/policies/acl/tried") != 1 || tap.Count("vault", "LIST sys/policies/acl") != 1 {
		t.Errorf("expected a write and a list, recorded %+v", tap.Calls())
	}
	tap.SetFault(func(Call) *Fault {
		return &Fault{Status: http.StatusServiceUnavailable, Body: []byte(`{"errors":["Vault is sealed"]}`)}
	})
	if _, err := client.Logical().ReadWithContext(t.Context(), "sys/policies/acl/tried"); err == nil || !strings.Contains(err.Error(), "Vault is sealed") {
		t.Errorf("expected the sealed answer, seen %v", err)
	}
}
