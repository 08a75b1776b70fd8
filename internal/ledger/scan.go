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
	// scanTimeout bounds the read of one page.
	scanTimeout = 15 * time.Second
	// scanPage is the number of items of a page. It keeps a page below DynamoDB's bound of 1 MB, and faster to read.
	// https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Scan.html
	scanPage = 500
	// scanSegments are read concurrently.
	// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Scan.html#Scan.ParallelScan
	scanSegments = 4
)

// Visitor has a function for each kind of item. The functions may keep their arguments.
type Visitor struct {
	Record func(Record)
	Claim  func(Name, Claim)
	// Certificates is called with the certificates of an owner; nil: their items are passed over.
	Certificates func(owner string, c Certificates)
}

// Scan calls v for every record, tombstones included, and every claim, by consistent reads. It never makes two calls at once.
// It fails if any page fails: v has then missed items.
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
		items := make([]item, len(page.Items))
		for i, fields := range page.Items {
			if items[i], err = decode(fields, v); err != nil {
				return err
			}
		}
		mu.Lock()
		for _, i := range items {
			i.visit(v)
		}
		mu.Unlock()
		if len(page.LastEvaluatedKey) == 0 {
			return nil
		}
		input.ExclusiveStartKey = page.LastEvaluatedKey
	}
}

// ScanFrom calls v for every record and every claim behind a key, in an order of DynamoDB's own, while more returns true; it is asked
// before each page. It returns the key behind which to continue, and an empty one at the table's end. An empty key begins at the start.
func (l *Ledger) ScanFrom(ctx context.Context, key string, v Visitor, more func() bool) (next string, err error) {
	input := &dynamodb.ScanInput{TableName: &l.table, ConsistentRead: aws.Bool(true), Limit: aws.Int32(scanPage)}
	if key != "" {
		input.ExclusiveStartKey = keyOf(key)
	}
	for next = key; more(); {
		page, err := l.scanPage(ctx, input)
		if err != nil {
			return next, fmt.Errorf("scanning table %s: %w", l.table, err)
		}
		for _, fields := range page.Items {
			i, err := decode(fields, v)
			if err != nil {
				return next, fmt.Errorf("scanning table %s: %w", l.table, err)
			}
			i.visit(v)
		}
		if input.ExclusiveStartKey = page.LastEvaluatedKey; len(page.LastEvaluatedKey) == 0 {
			return "", nil
		}
		last, _ := page.LastEvaluatedKey[keyAttribute].(*types.AttributeValueMemberS)
		if last == nil {
			return next, fmt.Errorf("scanning table %s: the last key has no %s", l.table, keyAttribute)
		}
		next = last.Value
	}
	return next, nil
}

// WhileTime returns a function for ScanFrom that asks for the first page in any case, so that each invocation gets on, and for others until
// the reserve before the deadline.
func WhileTime(ctx context.Context, reserve time.Duration) func() bool {
	until := time.Now().Add(15 * time.Minute) // Lambda's longest invocation
	if deadline, ok := ctx.Deadline(); ok {
		until = deadline
	}
	isFirst := true
	return func() bool {
		defer func() { isFirst = false }()
		return isFirst || time.Now().Before(until.Add(-reserve))
	}
}

func (l *Ledger) scanPage(ctx context.Context, input *dynamodb.ScanInput) (*dynamodb.ScanOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	return l.api.Scan(ctx, input)
}

// item is an item of the table: a record, a claim on a name, an owner's certificates, or neither.
type item struct {
	record       *Record
	name         Name
	claim        *Claim
	owner        string
	certificates *Certificates
}

func (i item) visit(v Visitor) {
	if i.record != nil {
		v.Record(*i.record)
	}
	if i.claim != nil {
		v.Claim(i.name, *i.claim)
	}
	if i.certificates != nil {
		v.Certificates(i.owner, *i.certificates)
	}
}

// decode decodes an item for a visitor.
func decode(fields map[string]types.AttributeValue, v Visitor) (out item, err error) {
	key, _ := fields[keyAttribute].(*types.AttributeValueMemberS)
	if key == nil {
		return out, errors.New("an item has no key " + keyAttribute + ": check that the table is this program's")
	}
	if name, ok := SplitClaimKey(key.Value); ok {
		out.name, out.claim = name, &Claim{}
		err = attributevalue.UnmarshalMap(fields, out.claim)
	} else if _, ok := SplitRecordKey(key.Value); ok {
		out.record = &Record{}
		err = attributevalue.UnmarshalMap(fields, out.record)
	} else if owner, ok := splitCertificatesKey(key.Value); ok && v.Certificates != nil {
		var packed certificatesItem
		var list Certificates
		if err = attributevalue.UnmarshalMap(fields, &packed); err == nil {
			list, err = packed.unpack()
		}
		out.owner, out.certificates = owner, &list
	}
	if err != nil {
		return out, fmt.Errorf("item %s is not one of this program's: %w", key.Value, err)
	}
	return out, nil
}
