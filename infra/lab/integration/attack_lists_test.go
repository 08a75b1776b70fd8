package integration

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// The classes of forms in which a client may ask for names or addresses.
const (
	namedForm   = "named in the policy"
	elementForm = "not named, each element is"
	foreignForm = "with an element that is not named"
)

// listForm is a request for a certificate of an instance with two names and two addresses.
type listForm struct {
	class  string
	fields map[string]any
	names  []string // the certificate's DNS names and addresses beside its common name
}

// etcdNode is a logged-in etcd node. Its server certificates have two names and two addresses.
type etcdNode struct {
	fleet.Instance
	session          *fleet.Session
	own              allowed
	names, addresses []string // in the policy's order
}

func joinEtcd(t *testing.T) etcdNode {
	t.Helper()
	i := launch(t, fleet.Spec{Role: "alice-etcd"})
	must(t, provision, i, "running", "provisioned")
	names, addresses := []string{i.PrivateDNS, "localhost"}, []string{i.PrivateIP, "127.0.0.1"}
	slices.Sort(names)
	slices.Sort(addresses)
	return etcdNode{Instance: i, session: login(t, i), names: names, addresses: addresses, own: allowed{
		role: i.ID + "-k8s_server", cn: i.PrivateDNS, dns: names, addresses: addresses,
		usage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		extUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}}
}

// TestLists_HoldOnlyTheInstancesValues asks in every form of names and addresses, by issue and by sign. A form that the policy names
// works on every version. Another form of the same elements works where the server compares each element, and is refused elsewhere.
// A form with anything else is refused on every version.
func TestLists_HoldOnlyTheInstancesValues(t *testing.T) {
	me, other := joinEtcd(t), joinEtcd(t)
	byElement := eachElementAllowed(t)
	forms := me.namedForms()
	maps.Copy(forms, me.elementForms())
	maps.Copy(forms, me.foreignForms(other.PrivateIP, other.PrivateDNS))
	request64 := csr(t, &x509.CertificateRequest{})
	var table tally
	for name, form := range forms {
		for _, op := range []string{"issue", "sign"} {
			t.Run(form.class+"/"+name+", by "+op, func(t *testing.T) {
				fields := map[string]any{"common_name": me.own.cn}
				maps.Copy(fields, form.fields)
				if op == "sign" {
					fields["csr"] = request64
				}
				status, body := send(t, me.session.Client, request{path: "alice_cluster/pki/etcd_k8s/" + op + "/" + me.own.role, body: text(t, fields)})
				got, _, err := judge(me.own, status, body)
				if err != nil {
					t.Errorf("%v: %v", form.fields, err)
					got = "more than its own"
				}
				table.add(form.class, got)
				switch {
				case form.class == namedForm, form.class == elementForm && byElement:
					names := form.names
					if !slices.Contains(names, me.own.cn) { // a host name, so Vault adds it to the names
						names = append(slices.Clone(names), me.own.cn)
					}
					wantNames(t, me.own, status, body, names)
				case form.class == elementForm && status != 403:
					t.Errorf("%v: want the policy to refuse it (403), as this server compares a list as a whole, got %d %.200s: change docs/profiles.md", form.fields, status, body)
				case form.class == foreignForm && got != refused:
					t.Errorf("%v: want it refused, got %d %.200s", form.fields, status, body)
				}
			})
		}
	}
	table.report(t, namedForm, elementForm, foreignForm)
}

// namedForms returns the forms that docs/profiles.md lists for every version.
func (n etcdNode) namedForms() map[string]listForm {
	forms := map[string]listForm{
		"all names, as a comma string":     {namedForm, map[string]any{"alt_names": strings.Join(n.names, ",")}, n.names},
		"all addresses, as a comma string": {namedForm, map[string]any{"ip_sans": strings.Join(n.addresses, ",")}, n.addresses},
		"all addresses, as a list":         {namedForm, map[string]any{"ip_sans": n.addresses}, n.addresses},
		"everything": {
			namedForm, map[string]any{"alt_names": strings.Join(n.names, ","), "ip_sans": n.addresses, "ttl": "1h"}, slices.Concat(n.names, n.addresses),
		},
	}
	for i, name := range n.names {
		forms[fmt.Sprintf("name %d, as a string", i+1)] = listForm{namedForm, map[string]any{"alt_names": name}, []string{name}}
	}
	for i, a := range n.addresses {
		forms[fmt.Sprintf("address %d, as a string", i+1)] = listForm{namedForm, map[string]any{"ip_sans": a}, []string{a}}
		forms[fmt.Sprintf("address %d, as a list of one", i+1)] = listForm{namedForm, map[string]any{"ip_sans": []string{a}}, []string{a}}
	}
	return forms
}

// elementForms returns forms that the policy does not name, of elements that it names.
func (n etcdNode) elementForms() map[string]listForm {
	a, b := n.addresses[0], n.addresses[1]
	forms := map[string]listForm{
		"all names, in another order": {elementForm, map[string]any{"alt_names": n.names[1] + "," + n.names[0]}, n.names},
	}
	for name, v := range map[string]struct {
		value     any
		addresses []string
	}{
		"all, in another order":                {b + "," + a, n.addresses},
		"all, with a space":                    {a + ", " + b, n.addresses},
		"one twice, as a comma string":         {a + "," + a, []string{a, a}},
		"all, as a list in another order":      {[]string{b, a}, n.addresses},
		"one twice, as a list":                 {[]string{a, a}, []string{a, a}},
		"all and one of them twice, as a list": {[]string{a, b, a}, []string{a, b, a}},
		"no address, as an empty list":         {[]string{}, nil},
	} {
		forms["addresses: "+name] = listForm{elementForm, map[string]any{"ip_sans": v.value}, v.addresses}
	}
	return forms
}

// foreignForms returns forms with an element that the policy does not name: another's, a pattern, or one of another type.
func (n etcdNode) foreignForms(theirs, theirName string) map[string]listForm {
	a, b := n.addresses[0], n.addresses[1]
	forms := map[string]listForm{}
	for name, value := range map[string]any{
		"another's alone":                              []string{theirs},
		"another's behind one":                         []string{a, theirs},
		"another's before one":                         []string{theirs, a},
		"another's behind all":                         []string{a, b, theirs},
		"another's between all":                        []string{a, theirs, b},
		"another's in the place of the last":           []string{b, theirs},
		"another's in one element":                     []string{a + "," + theirs},
		"another's in one element behind all":          []string{a, b + "," + theirs},
		"another's in one element behind the string":   []string{strings.Join(n.addresses, ",") + "," + theirs},
		"another's behind the comma string of all":     []string{strings.Join(n.addresses, ","), theirs},
		"another's behind a list of one":               []any{[]string{a}, theirs},
		"another's behind a list of all":               []any{n.addresses, theirs},
		"another's in a list behind one":               []any{a, []string{theirs}},
		"another's in a list with one":                 []any{[]string{a, theirs}},
		"another's in a list behind a list of all":     []any{n.addresses, []string{theirs}},
		"another's deep in lists":                      []any{[]any{[]any{n.addresses, theirs}}},
		"another's as a mapped address":                []string{a, "::ffff:" + theirs},
		"another's in an object":                       []any{a, map[string]any{"a": theirs}},
		"another's in a JSON text":                     `["` + a + `","` + theirs + `"]`,
		"another's in a JSON text in a list":           []string{`["` + a + `","` + theirs + `"]`},
		"a list of all in a list":                      []any{n.addresses},
		"lists of one in a list":                       []any{[]string{a}, []string{b}},
		"a list of one beside an address":              []any{[]string{a}, b},
		"a list of all in a list of lists":             []any{[]any{n.addresses}},
		"an empty list in a list":                      []any{[]string{}},
		"an empty list beside an address":              []any{a, []string{}},
		"the comma string of all, as a list of one":    []string{strings.Join(n.addresses, ",")},
		"an address with a space behind it, in a list": []string{a + " "},
		"a wildcard alone":                             []string{"*"},
		"a wildcard behind all":                        []string{a, b, "*"},
		"a wildcard in an element":                     []string{a[:len(a)-1] + "*"},
		"an empty string":                              []string{""},
		"an empty string behind one":                   []string{a, ""},
		"a null behind one":                            []any{a, nil},
		"nothing but a null":                           []any{nil},
		"a number":                                     []any{a, 2131755269},
		"a boolean":                                    []any{true},
		"an object with its own elements":              map[string]any{"0": a, "1": b},
		"an object that is a list of addresses":        []any{map[string]any{"0": a, "1": b}},
	} {
		forms["addresses: "+name] = listForm{foreignForm, map[string]any{"ip_sans": value}, nil}
	}
	// The PKI engine reads these as strings: it refuses a list, whatever the policy allows.
	for name, fields := range map[string]map[string]any{
		"one name, as a list":               {"alt_names": n.names[:1]},
		"all names, as a list":              {"alt_names": n.names},
		"names: another's in a list":        {"alt_names": []string{n.names[0], theirName}},
		"names: another's in a list alone":  {"alt_names": []string{theirName}},
		"the common name, as a list":        {"common_name": []string{n.own.cn}},
		"another's common name, in a list":  {"common_name": []string{n.own.cn, theirName}},
		"a URI, in a list":                  {"uri_sans": []string{"spiffe://cluster/etcd"}},
		"no URI, as an empty list":          {"uri_sans": []string{}},
		"no user, as an empty list":         {"user_ids": []string{}},
		"any other name, in a list":         {"other_sans": []string{"*"}},
		"an own address as a name, by list": {"alt_names": []string{a}},
	} {
		forms[name] = listForm{foreignForm, fields, nil}
	}
	return forms
}
