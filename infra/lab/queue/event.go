package queue

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// record is one message as Lambda passes it to a function.
type record struct {
	MessageID              string                      `json:"messageId"`
	ReceiptHandle          string                      `json:"receiptHandle"`
	Body                   string                      `json:"body"`
	Attributes             map[string]string           `json:"attributes"`
	MessageAttributes      map[string]messageAttribute `json:"messageAttributes"`
	MD5OfMessageAttributes string                      `json:"md5OfMessageAttributes,omitempty"`
	MD5OfBody              string                      `json:"md5OfBody"`
	EventSource            string                      `json:"eventSource"`
	EventSourceARN         string                      `json:"eventSourceARN"`
	AWSRegion              string                      `json:"awsRegion"`
}

type messageAttribute struct {
	StringValue      *string  `json:"stringValue,omitempty"`
	BinaryValue      []byte   `json:"binaryValue,omitempty"`
	StringListValues []string `json:"stringListValues"`
	BinaryListValues [][]byte `json:"binaryListValues"`
	DataType         string   `json:"dataType"`
}

func sqsEvent(messages []sqstypes.Message, queueARN string) ([]byte, error) {
	fields := strings.SplitN(queueARN, ":", 6)
	if len(fields) != 6 {
		return nil, fmt.Errorf("reading the region of queue %q: it is no ARN", queueARN)
	}
	records := make([]record, 0, len(messages))
	for _, m := range messages {
		attributes := make(map[string]messageAttribute, len(m.MessageAttributes))
		for name, a := range m.MessageAttributes {
			attributes[name] = messageAttribute{
				StringValue: a.StringValue, BinaryValue: a.BinaryValue, DataType: aws.ToString(a.DataType),
				StringListValues: []string{}, BinaryListValues: [][]byte{},
			}
		}
		records = append(records, record{
			MessageID: aws.ToString(m.MessageId), ReceiptHandle: aws.ToString(m.ReceiptHandle), Body: aws.ToString(m.Body),
			Attributes: m.Attributes, MessageAttributes: attributes, MD5OfMessageAttributes: aws.ToString(m.MD5OfMessageAttributes),
			MD5OfBody: aws.ToString(m.MD5OfBody), EventSource: "aws:sqs", EventSourceARN: queueARN, AWSRegion: fields[3],
		})
	}
	return json.Marshal(map[string]any{"Records": records})
}

// failures returns the IDs of a partial batch response: the messages that must stay
// in the queue. A response that Lambda would not accept is an error, and then
// nothing is deleted.
func failures(answer []byte, sent []sqstypes.Message) (map[string]bool, error) {
	known := make(map[string]bool, len(sent))
	for _, m := range sent {
		known[aws.ToString(m.MessageId)] = true
	}
	failed := map[string]bool{}
	if len(answer) == 0 {
		return failed, nil
	}
	var response struct {
		BatchItemFailures []struct {
			ItemIdentifier string `json:"itemIdentifier"`
		} `json:"batchItemFailures"`
	}
	if err := json.Unmarshal(answer, &response); err != nil {
		return nil, fmt.Errorf("reading the partial batch response %.200q: %w", answer, err)
	}
	for _, item := range response.BatchItemFailures {
		if !known[item.ItemIdentifier] {
			return nil, fmt.Errorf("reading the partial batch response: itemIdentifier %q is no message of the batch", item.ItemIdentifier)
		}
		failed[item.ItemIdentifier] = true
	}
	return failed, nil
}
