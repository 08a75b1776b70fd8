package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

const (
	certificatesPrefix = "certificates#"
	// MaxCertificates bounds the certificates of one item: an entry takes about 27 bytes, and DynamoDB's items are 400 KB at most.
	MaxCertificates = 10_000
	// certificatesTime is how long an item is kept after its last certificate has ended.
	certificatesTime = 7 * 24 * time.Hour
)

// CertificatesKey returns the key of the item with an owner's certificates. An owner is an instance, or a part of the settled
// certificates of a mount.
func CertificatesKey(owner string) string { return certificatesPrefix + owner }

// Certificate is a certificate that a PKI mount stores.
type Certificate struct {
	Mount  string
	Serial string // the bytes of the number
	// Until is its end, in whole seconds.
	Until time.Time
	// Revoked reports whether there is nothing left to revoke.
	Revoked bool
}

// Certificates are the certificates of one owner. They are apart from the owner's record, so that no run on the instance waits for
// their writes.
type Certificates struct {
	List    []Certificate
	version string // of the item as read; empty if there is none
}

// certificatesItem is the packed form. Each entry has the index of its mount and whether it is revoked in a number, its end in 4
// bytes, and its serial number behind its length.
type certificatesItem struct {
	Mounts    []string `dynamodbav:"mounts"`
	Packed    []byte   `dynamodbav:"packed"`
	Version   string   `dynamodbav:"version"` // new at each write
	ExpiresAt int64    `dynamodbav:"expires_at,omitempty"`
}

// Certificates returns the certificates of an owner by a consistent read; none if there is no item.
func (l *Ledger) Certificates(ctx context.Context, owner string) (Certificates, error) {
	var i certificatesItem
	found, err := l.get(ctx, CertificatesKey(owner), &i)
	if err != nil || !found {
		return Certificates{}, err
	}
	c, err := i.unpack()
	if err != nil {
		return Certificates{}, fmt.Errorf("reading %s from table %s: %w", CertificatesKey(owner), l.table, err)
	}
	return c, nil
}

// PutCertificates writes the certificates of an owner. old are those that were read. Where keeps is set, the item is kept whatever the
// ends of its certificates. The error wraps ErrChanged if the item has changed since it was read.
func (l *Ledger) PutCertificates(ctx context.Context, owner string, old Certificates, list []Certificate, keeps bool) error {
	key := CertificatesKey(owner)
	next := packCertificates(list)
	next.Version = newID()
	if keeps {
		next.ExpiresAt = 0
	}
	item, err := marshal(key, next)
	if err != nil {
		return err
	}
	condition := "attribute_not_exists(pk)"
	put := dynamodb.PutItemInput{TableName: &l.table, Item: item, ConditionExpression: &condition, ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld}
	if old.version != "" {
		condition = "version = :version"
		put.ExpressionAttributeValues = map[string]types.AttributeValue{":version": stringValue(old.version)}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = l.api.Put(ctx, &put)
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		if v, ok := failed.Item["version"].(*types.AttributeValueMemberS); ok && v.Value == next.Version {
			return nil // the answer was lost, and the SDK repeated the write
		}
		err = fault.New(fault.Retry, ErrChanged)
	}
	if err != nil {
		return fmt.Errorf("writing %s to table %s: %w", key, l.table, err)
	}
	return nil
}

// sweepKey is the key of the item that only one run over the certificates holds at a time.
const sweepKey = certificatesPrefix + "@sweep"

// BeginSweep takes the right to read the certificates for a time, and reports whether no other run has it.
func (l *Ledger) BeginSweep(ctx context.Context, run string, lasts time.Duration) (bool, error) {
	now := l.now()
	return l.putSweep(ctx, run, now.Add(lasts), "attribute_not_exists(pk) OR ends_at < :now OR run = :run", map[string]types.AttributeValue{
		":now": numberValue(now.Unix()), ":run": stringValue(run),
	})
}

// EndSweep gives the right back, if the run has it.
func (l *Ledger) EndSweep(ctx context.Context, run string) error {
	_, err := l.putSweep(ctx, run, time.Unix(0, 0), "run = :run", map[string]types.AttributeValue{":run": stringValue(run)})
	return err
}

func (l *Ledger) putSweep(ctx context.Context, run string, ends time.Time, condition string, values map[string]types.AttributeValue) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	item := keyOf(sweepKey)
	item["run"], item["ends_at"] = stringValue(run), numberValue(ends.Unix())
	_, err := l.api.Put(ctx, &dynamodb.PutItemInput{TableName: &l.table, Item: item, ConditionExpression: &condition, ExpressionAttributeValues: values})
	var isHeld *types.ConditionalCheckFailedException
	if errors.As(err, &isHeld) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("writing %s to table %s: %w", sweepKey, l.table, err)
	}
	return true, nil
}

func numberValue(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

// packCertificates returns the packed form, which expires some days after the last certificate.
func packCertificates(list []Certificate) certificatesItem {
	i := certificatesItem{Mounts: []string{}, Packed: make([]byte, 0, 27*len(list))}
	var last time.Time
	for _, c := range list {
		at := slices.Index(i.Mounts, c.Mount)
		if at < 0 {
			at = len(i.Mounts)
			i.Mounts = append(i.Mounts, c.Mount)
		}
		flags := uint64(at) << 1
		if c.Revoked {
			flags |= 1
		}
		i.Packed = binary.AppendUvarint(i.Packed, flags)
		i.Packed = binary.BigEndian.AppendUint32(i.Packed, uint32(min(max(c.Until.Unix(), 0), 1<<32-1))) // X.509's year 9999 is beyond it
		i.Packed = append(i.Packed, byte(len(c.Serial)))
		i.Packed = append(i.Packed, c.Serial...)
		if c.Until.After(last) {
			last = c.Until
		}
	}
	i.ExpiresAt = last.Add(certificatesTime).Unix()
	return i
}

func (i certificatesItem) unpack() (Certificates, error) {
	out := Certificates{version: i.Version}
	for rest := i.Packed; len(rest) > 0; {
		flags, n := binary.Uvarint(rest)
		if n <= 0 || len(rest) < n+5 || flags>>1 >= uint64(len(i.Mounts)) || len(rest) < n+5+int(rest[n+4]) {
			return out, errors.New("the item is not one of this program's: its packed certificates are broken; delete it, and the next run over the certificates makes it again")
		}
		end := n + 5 + int(rest[n+4])
		out.List = append(out.List, Certificate{
			Mount: i.Mounts[flags>>1], Revoked: flags&1 == 1, Until: time.Unix(int64(binary.BigEndian.Uint32(rest[n:])), 0).UTC(), Serial: string(rest[n+5 : end]),
		})
		rest = rest[end:]
	}
	return out, nil
}

// splitCertificatesKey returns the owner whose certificates have a key. ok is false for a key of another kind.
func splitCertificatesKey(key string) (owner string, ok bool) {
	return strings.CutPrefix(key, certificatesPrefix)
}
