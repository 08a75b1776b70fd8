package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"
)

const (
	// scanTimeout bounds one page. A page is at most 1 MB; this many items stay below it and are faster to read.
	// https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Scan.html
	scanTimeout = 15 * time.Second
	scanPage    = 500
	// scanSegments are read side by side.
	// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Scan.html#Scan.ParallelScan
	scanSegments = 4
)

// Visitor is shown the whole table, item by item. What it is given is its own to keep.
type Visitor struct {
	Record func(Record)
	Claim  func(Name, Claim)
}

// Scan shows every record and claim, tombstones included, page by page and consistently, never two at once. It fails
// when any page does: what was shown until then is not the whole.
func (l *Ledger) Scan(ctx context.Context, v Visitor) error {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	for segment := range int32(scanSegments) {
		group.Go(func() error { return l.scanSegment(ctx, segment, &mu, v) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("scanning table %s: %w", l.table, err)
	}
	return nil
}

func (l *Ledger) scanSegment(ctx context.Context, segment int32, mu *sync.Mutex, v Visitor) error {
	input := &dynamodb.ScanInput{
		TableName: &l.table, ConsistentRead: aws.Bool(true), Limit: aws.Int32(scanPage), Segment: &segment, TotalSegments: aws.Int32(scanSegments),
	}
	for {
		page, err := l.scanPage(ctx, input)
		if err != nil {
			return err
		}
		items := make([]shown, len(page.Items))
		for i, item := range page.Items {
			if items[i], err = read(item); err != nil {
				return err
			}
		}
		mu.Lock()
		for _, item := range items {
			item.to(v)
		}
		mu.Unlock()
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

// shown is an item as a visitor is shown it; nothing of it for an item of another kind.
type shown struct {
	record *Record
	name   Name
	claim  *Claim
}

func (s shown) to(v Visitor) {
	if s.record != nil {
		v.Record(*s.record)
	}
	if s.claim != nil {
		v.Claim(s.name, *s.claim)
	}
}

func read(item map[string]types.AttributeValue) (out shown, err error) {
	pk, _ := item["pk"].(*types.AttributeValueMemberS)
	if pk == nil {
		return out, errors.New("an item has no key pk: is the table this program's?")
	}
	if name, ok := SplitClaimKey(pk.Value); ok {
		out.name, out.claim = name, &Claim{}
		err = attributevalue.UnmarshalMap(item, out.claim)
	} else if _, ok := SplitRecordKey(pk.Value); ok {
		out.record = &Record{}
		err = attributevalue.UnmarshalMap(item, out.record)
	}
	if err != nil {
		return out, fmt.Errorf("item %s is not one of this program's: %w", pk.Value, err)
	}
	return out, nil
}
