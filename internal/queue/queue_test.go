package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/queue"
)

// sender records the bodies it was sent. It fails the call of this number and refuses messages that contain this text.
type sender struct {
	bodies     []string
	calls      int
	failCall   int
	refuseText string
}

func (s *sender) send(_ context.Context, in *sqs.SendMessageBatchInput, _ ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error) {
	s.calls++
	if len(in.Entries) > 10 {
		return nil, errors.New("more than ten messages")
	}
	if s.calls == s.failCall {
		return nil, errors.New("SQS does not answer")
	}
	out := &sqs.SendMessageBatchOutput{}
	for _, e := range in.Entries {
		if s.refuseText != "" && strings.Contains(*e.MessageBody, s.refuseText) {
			out.Failed = append(out.Failed, types.BatchResultErrorEntry{Id: e.Id, Code: aws.String("Throttled"), Message: aws.String("slow down")})
			continue
		}
		s.bodies = append(s.bodies, *e.MessageBody)
	}
	return out, nil
}

func events(n int) []event.Event {
	var out []event.Event
	for i := range n {
		out = append(out, event.Event{
			Ref:   facts.Ref{ID: fmt.Sprintf("i-%08x", i), Place: facts.Place{Account: "123456789012", Region: "us-east-1"}},
			State: facts.Running,
			Time:  time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		})
	}
	return out
}

func TestSend_BatchesTenReadableEvents(t *testing.T) {
	s := &sender{}
	for i, err := range queue.New(s.send, "https://sqs/x").Send(t.Context(), events(23)) {
		if err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if s.calls != 3 || len(s.bodies) != 23 {
		t.Fatalf("want 23 messages in 3 calls, got %d in %d", len(s.bodies), s.calls)
	}
	for i, body := range s.bodies {
		p, err := event.Parse([]byte(body))
		if err != nil || len(p.Records) != 1 || p.Records[0].Err != nil {
			t.Fatalf("%s: %+v, %v", body, p, err)
		}
		got, want := p.Records[0].Event, events(23)[i]
		if !got.Verify || got.Ref != want.Ref || got.State != want.State || !got.Time.Equal(want.Time) {
			t.Errorf("want %+v with Verify set, got %+v", want, got)
		}
	}
}

func TestSend_ErrorStaysWithItsInstances(t *testing.T) {
	s := &sender{failCall: 2, refuseText: "i-00000003"}
	for i, err := range queue.New(s.send, "https://sqs/x").Send(t.Context(), events(23)) {
		if want := i == 3 || (i >= 10 && i < 20); (err != nil) != want {
			t.Errorf("message %d: failed %v, want %v (%v)", i, err != nil, want, err)
		}
	}
}
