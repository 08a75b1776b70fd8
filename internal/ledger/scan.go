package ledger

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const (
	// scanTimeout bounds one page. A page is at most 1 MB; this many items stay below it and are faster to read.
	// https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Scan.html
	scanTimeout = 15 * time.Second
	scanPage    = 1000
)

// Visitor is shown the whole table, item by item. What it is given is its own to keep.
type Visitor struct {
	Record func(Record)
	Claim  func(Name, Claim)
}

// Scan shows every record and claim, tombstones included, page by page and consistently. It fails when any page does:
// what was shown until then is not the whole.
func (l *Ledger) Scan(ctx context.Context, v Visitor) error {
	input := &dynamodb.ScanInput{TableName: &l.table, ConsistentRead: aws.Bool(true), Limit: aws.Int32(scanPage)}
	for {
		page, err := l.scanPage(ctx, input)
		if err != nil {
			return fmt.Errorf("scanning table %s: %w", l.table, err)
		}
		for _, item := range page.Items {
			if err := show(item, v); err != nil {
				return fmt.Errorf("scanning table %s: %w", l.table, err)
			}
		}
		if len(page.LastEvaluatedKey) == 0 {
			return nil
		}
		input.ExclusiveStartKey = page.LastEvaluatedKey
	}
}

func (l *Ledger) scanPage(ctx context.Context, input *dynamodb.ScanInput) (*dynamodb.ScanOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	return l.api.Scan(ctx, input)
}

func show(item map[string]types.AttributeValue, v Visitor) error {
	pk, _ := item["pk"].(*types.AttributeValueMemberS)
	if pk == nil {
		return fmt.Errorf("an item has no key pk: is the table this program's?")
	}
	var err error
	if name, ok := nameOf(pk.Value); ok {
		var c Claim
		if err = attributevalue.UnmarshalMap(item, &c); err == nil {
			v.Claim(name, c)
		}
	} else if strings.HasPrefix(pk.Value, recordKey("")) {
		var r Record
		if err = attributevalue.UnmarshalMap(item, &r); err == nil {
			v.Record(r)
		}
	}
	if err != nil {
		return fmt.Errorf("item %s is not one of this program's: %w", pk.Value, err)
	}
	return nil
}
