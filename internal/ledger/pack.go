package ledger

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"
)

// Packed is a record in a compact form, about a fifth of the memory of a Record. Only the Packer that made it can read it.
type Packed string

// Packer packs records. It keeps the texts that many records share, once each. The zero value is ready for use. Pack is not safe
// for concurrent use. Unpack is, once all records are packed.
type Packer struct {
	texts []string
	index map[string]int
}

// own stands for the instance's ID in a packed text: most texts differ by the ID alone. Names and paths do not have this byte.
const own = "\x00"

// Pack returns the packed form of a record. Times are kept as instants, in UTC.
func (p *Packer) Pack(r Record) Packed {
	c := &coder{Packer: p, id: r.InstanceID, out: make([]byte, 0, 1024), packs: true}
	c.raw(&r.InstanceID)
	r.code(c)
	return Packed(c.out)
}

// Unpack returns the record of a packed form.
func (p *Packer) Unpack(packed Packed) *Record {
	c := &coder{Packer: p, in: string(packed)}
	r := &Record{}
	c.raw(&r.InstanceID)
	c.id = r.InstanceID
	r.code(c)
	return r
}

// code packs or unpacks every field but the instance's ID.
func (r *Record) code(c *coder) {
	shared(c, &r.State)
	shared(c, &r.Account)
	shared(c, &r.Region)
	shared(c, &r.Profile)
	shared(c, &r.ProfileDigest)
	shared(c, &r.BasePath)
	c.text(&r.FQDN)
	list(c, &r.Claims, codeName)
	list(c, &r.Former, func(n *FormerName, c *coder) {
		codeName(&n.Name, c)
		c.time(&n.Until)
	})
	list(c, &r.Released, func(n *ReleasedName, c *coder) {
		codeName(&n.Name, c)
		c.time(&n.At)
	})
	c.number(&r.CertificateTTL)
	c.number(&r.CertificateBackdated)
	list(c, &r.Addresses, codeText)
	list(c, &r.Objects, codeObject)
	list(c, &r.Retained, codeObject)
	shared(c, &r.LoginType)
	c.number(&r.TokenMaxTTL)
	c.optionalTime(&r.UncutUntil)
	list(c, &r.Revoking, codeText)
	c.bool(&r.ExtraPolicies)
	c.optionalTime(&r.QuietUntil)
	c.optionalTime(&r.LeavingSince)
	c.optionalTime(&r.ReplacingSince)
	optional(c, &r.Quarantine, codeQuarantine)
	list(c, &r.FormerRoleIDs, codeText)
	c.optionalTime(&r.MadeAt)
	optional(c, &r.Ready, codeSpan)
	optional(c, &r.Cut, codeSpan)
	c.time(&r.EventTime)
	c.time(&r.CreatedAt)
	c.time(&r.UpdatedAt)
	c.optionalTime(&r.DeletedAt)
	attempts := int64(r.Attempts)
	c.number(&attempts)
	r.Attempts = int(attempts)
	c.raw(&r.LastError)
	c.number(&r.Version)
	c.text(&r.LeaseOwner)
	c.number(&r.LeaseExpiresAt)
	shared(c, &r.Program)
	c.hex(&r.WriteID)
	c.number(&r.ExpiresAt)
}

func codeObject(o *Object, c *coder) {
	shared(c, &o.Kind)
	shared(c, &o.Path)
	c.hex(&o.SHA256)
	c.text(&o.RoleID)
	c.bool(&o.Left)
	c.bool(&o.Retain)
}

func codeName(n *Name, c *coder) {
	shared(c, &n.Under)
	c.text(&n.Text)
}

func codeText(s *string, c *coder) { c.text(s) }

// coder packs the values behind pointers, or unpacks them in the same order.
type coder struct {
	*Packer
	id    string // of the record's instance
	packs bool
	out   []byte // the packed form so far
	in    string // the rest of the packed form to unpack
}

// number packs or unpacks a number.
func (c *coder) number(n *int64) {
	if c.packs {
		c.out = binary.AppendVarint(c.out, *n)
		return
	}
	var u uint64
	for i, b := range []byte(c.in[:min(len(c.in), binary.MaxVarintLen64)]) {
		u |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			c.in = c.in[i+1:]
			break
		}
	}
	*n = int64(u>>1) ^ -int64(u&1)
}

func (c *coder) bool(b *bool) {
	var n int64
	if *b {
		n = 1
	}
	c.number(&n)
	*b = n == 1
}

// raw packs or unpacks a text as it is.
func (c *coder) raw(s *string) {
	size := int64(len(*s))
	c.number(&size)
	if c.packs {
		c.out = append(c.out, *s...)
		return
	}
	*s, c.in = c.in[:size], c.in[size:]
}

// text packs or unpacks a text that may have the instance's ID in it.
func (c *coder) text(s *string) {
	short := c.shorten(*s)
	c.raw(&short)
	if !c.packs {
		*s = c.lengthen(short)
	}
}

// shared packs or unpacks a text that, but for the instance's ID, many records have.
func shared[S ~string](c *coder, s *S) {
	var place int64
	if c.packs {
		place = int64(c.placeOf(c.shorten(string(*s))))
	}
	c.number(&place)
	if !c.packs {
		*s = S(c.lengthen(c.texts[place]))
	}
}

func (c *coder) shorten(s string) string {
	if c.id == "" {
		return s
	}
	return strings.ReplaceAll(s, c.id, own)
}

func (c *coder) lengthen(s string) string {
	if c.id == "" {
		return s
	}
	return strings.ReplaceAll(s, own, c.id)
}

// placeOf returns the place of a text among texts, to which it is added.
func (p *Packer) placeOf(text string) int {
	if i, known := p.index[text]; known {
		return i
	}
	if p.index == nil {
		p.index = map[string]int{}
	}
	text = strings.Clone(text)
	p.index[text] = len(p.texts)
	p.texts = append(p.texts, text)
	return len(p.texts) - 1
}

// hex packs or unpacks a text that is bytes in lower-case hex, as a rule.
func (c *coder) hex(s *string) {
	short, isHex := *s, false
	if c.packs {
		raw, err := hex.DecodeString(*s)
		if isHex = err == nil && hex.EncodeToString(raw) == *s; isHex {
			short = string(raw)
		}
	}
	c.bool(&isHex)
	c.raw(&short)
	switch {
	case c.packs:
	case isHex:
		*s = hex.EncodeToString([]byte(short))
	default:
		*s = short
	}
}

func (c *coder) time(t *time.Time) {
	seconds, nanoseconds := t.Unix(), int64(t.Nanosecond())
	c.number(&seconds)
	c.number(&nanoseconds)
	if !c.packs {
		*t = time.Unix(seconds, nanoseconds).UTC()
	}
}

func (c *coder) optionalTime(t **time.Time) {
	optional(c, t, func(t *time.Time, c *coder) { c.time(t) })
}

// optional packs or unpacks a value that may be absent.
func optional[T any](c *coder, v **T, code func(*T, *coder)) {
	isSet := *v != nil
	c.bool(&isSet)
	switch {
	case !isSet:
	case c.packs:
		code(*v, c)
	default:
		*v = new(T)
		code(*v, c)
	}
}

func codeSpan(s *Span, c *coder) {
	shared(c, &s.By)
	c.optionalTime(&s.From)
	c.optionalTime(&s.To)
}

// list packs or unpacks a list. A nil list and an empty one stay apart.
func list[T any](c *coder, all *[]T, each func(*T, *coder)) {
	n := int64(len(*all)) + 1
	if *all == nil {
		n = 0
	}
	c.number(&n)
	if !c.packs && n > 0 {
		*all = make([]T, n-1)
	}
	for i := range *all {
		each(&(*all)[i], c)
	}
}
