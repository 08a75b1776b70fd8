package storm

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// messages is one queue.
type messages struct {
	waiting  []message
	inFlight map[string]bool // by receipt
	sent     int
}

type message struct {
	id   string
	body string
	at   time.Time
}

// send puts bodies into a queue.
func (c *cloud) send(url string, bodies ...[]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.messagesOf(url)
	for _, b := range bodies {
		q.sent++
		q.waiting = append(q.waiting, message{id: "m" + strconv.Itoa(q.sent), body: string(b), at: time.Now()})
	}
}

func (c *cloud) messagesOf(url string) *messages {
	if c.queues[url] == nil {
		c.queues[url] = &messages{inFlight: map[string]bool{}}
	}
	return c.queues[url]
}

// queue answers in SQS's JSON protocol.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-json-api.html
func (c *cloud) queue(action string, body []byte) (map[string]any, error) {
	var in struct {
		QueueURL            string `json:"QueueUrl"`
		MaxNumberOfMessages int
		Entries             []struct {
			ID            string `json:"Id"`
			ReceiptHandle string
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("reading a %s: %w", action, err)
	}
	q := c.messagesOf(in.QueueURL)
	switch action {
	case "ReceiveMessage":
		return q.receive(in.MaxNumberOfMessages), nil
	case "DeleteMessageBatch":
		var done []map[string]string
		for _, e := range in.Entries {
			delete(q.inFlight, e.ReceiptHandle)
			done = append(done, map[string]string{"Id": e.ID})
		}
		return map[string]any{"Successful": done, "Failed": []string{}}, nil
	default:
		return map[string]any{"Attributes": map[string]string{
			"ApproximateNumberOfMessages": strconv.Itoa(len(q.waiting)), "ApproximateNumberOfMessagesNotVisible": strconv.Itoa(len(q.inFlight)),
			"ApproximateNumberOfMessagesDelayed": "0",
		}}, nil
	}
}

// await blocks until the queue has a message, at most for the wait time of the request.
func (c *cloud) await(ctx context.Context, body []byte) {
	var in struct {
		QueueURL        string `json:"QueueUrl"`
		WaitTimeSeconds int
	}
	_ = json.Unmarshal(body, &in) // an unreadable body waits for nothing
	for until := time.Now().Add(time.Duration(in.WaitTimeSeconds) * time.Second); ctx.Err() == nil && time.Now().Before(until); {
		c.mu.Lock()
		waiting := len(c.messagesOf(in.QueueURL).waiting)
		c.mu.Unlock()
		if waiting > 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// receive returns up to most waiting messages and marks them in flight.
func (q *messages) receive(most int) map[string]any {
	var out []map[string]any
	for _, m := range q.waiting[:min(most, len(q.waiting))] {
		sum := md5.Sum([]byte(m.body))
		q.inFlight[m.id] = true
		out = append(out, map[string]any{
			"MessageId": m.id, "ReceiptHandle": m.id, "Body": m.body, "MD5OfBody": hex.EncodeToString(sum[:]),
			"Attributes": map[string]string{"ApproximateReceiveCount": "1", "SentTimestamp": strconv.FormatInt(m.at.UnixMilli(), 10)},
		})
	}
	q.waiting = q.waiting[len(out):]
	return map[string]any{"Messages": out}
}
