package ledger

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

// fill sets every field of a value to one that no other has, so that a field which is left out, or mixed up with another, shows.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d of i-0123456789abcdef0", *n))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(-*n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 1, 0, 0, *n, *n, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic("a record has a field of type " + v.Type().String() + ": fill it too")
	}
}

func TestPack_KeepsEveryField(t *testing.T) {
	var full Record
	n := 0
	fill(reflect.ValueOf(&full).Elem(), &n)
	full.InstanceID = "i-0123456789abcdef0"
	full.Objects[0].SHA256, full.Objects[1].SHA256 = "00ff", "00FF" // the second is no hex form that this program writes
	another := full
	another.InstanceID, another.State = "i-0123456789abcdef1", Active
	empty := Record{Addresses: []string{}}
	old := full
	old.InstanceID = ""
	var p Packer
	for _, want := range []Record{full, another, {}, empty, old} {
		if got := p.Unpack(p.Pack(want)); !reflect.DeepEqual(*got, want) {
			t.Errorf("want the record unchanged\n%+v\ngot\n%+v", want, *got)
		}
	}
}

// A fleet's records share all texts but a few.
func TestPack_IsSmall(t *testing.T) {
	var p Packer
	const most = 400
	for n := range 100 {
		id := fmt.Sprintf("i-%017x", n)
		name := fmt.Sprintf("ip-10-0-0-%d.ec2.internal", n)
		r := Record{
			InstanceID: id, State: Active, Account: "123456789012", Region: "eu-central-1", Profile: "alice_cluster-worker", BasePath: "alice_cluster", FQDN: name,
			Claims:    []Name{{"alice_cluster", name}, {"alice_cluster/pki/k8s", name}, {"alice_cluster/pki/k8s", "10.0.0.1"}},
			Addresses: []string{"10.0.0.1"}, WriteID: newID(), CreatedAt: time.Now().UTC(), UpdatedAt: time.Now().UTC(), EventTime: time.Now().UTC(),
		}
		for _, path := range []string{"sys/policies/acl/ec2-" + id + "-node", "alice_cluster/pki/k8s/roles/" + id + "-kubelet", "auth/aws/role/" + id} {
			r.Objects = append(r.Objects, Object{Kind: "policy", Path: path, SHA256: newID() + newID()})
		}
		if got := len(p.Pack(r)); got > most {
			t.Fatalf("want no more than %d bytes, got %d", most, got)
		}
	}
	if len(p.texts) > 20 {
		t.Errorf("want the shared texts kept once, got %d: %q", len(p.texts), p.texts)
	}
}

func BenchmarkPack(b *testing.B) {
	var p Packer
	id := "i-0123456789abcdef0"
	name := "ip-10-0-0-1.ec2.internal"
	r := Record{
		InstanceID: id, State: Active, Account: "123456789012", Region: "eu-central-1", Profile: "alice_cluster-worker", BasePath: "alice_cluster", FQDN: name,
		Claims:    []Name{{"alice_cluster", name}, {"alice_cluster/pki/k8s", name}, {"alice_cluster/pki/k8s", "system:node:" + name}, {"alice_cluster/pki/k8s", "10.0.0.1"}},
		Addresses: []string{"10.0.0.1"}, WriteID: newID(), CreatedAt: time.Now().UTC(), UpdatedAt: time.Now().UTC(), EventTime: time.Now().UTC(),
	}
	for _, path := range []string{"sys/policies/acl/ec2-" + id + "-node", "alice_cluster/pki/k8s/roles/" + id + "-kubelet", "auth/aws/role/" + id} {
		r.Objects = append(r.Objects, Object{Kind: "policy", Path: path, SHA256: newID() + newID()})
	}
	b.Run("pack", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Pack(r)
		}
	})
	packed := p.Pack(r)
	b.Run("unpack", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Unpack(packed)
		}
	})
}
