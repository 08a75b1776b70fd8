package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const (
	anotherName    = "another's name"
	anotherAddress = "another's address"
	widerName      = "wildcard, subdomain, parent domain, localhost"
	otherKinds     = "email, URI, other and user-ID names"
	cnTricks       = "common name left out or hidden"
	lifetime       = "lifetime"
	subject        = "subject, usages and key"
	shape          = "shape of the request"
	foreignCSR     = "CSR that asks for more"
	otherPaths     = "other paths of the PKI mount"
	anothersRole   = "another instance's role"
	widening       = "widening its own grant"
	acme           = "ACME"
)

// attempt is one request that must be refused, or at most get the worker's own certificate.
type attempt struct {
	class, name string
	own         allowed // if zero, any success is a failure
	request     request
}

// attempts collects the attempts. They vary the request for everything that the worker may have.
type attempts struct {
	t    *testing.T
	me   member
	list []attempt
}

// ask returns a request for a certificate with all its own names, changed by fields. A gone value removes its field.
func (a *attempts) ask(op string, own allowed, fields map[string]any) (path string, all map[string]any) {
	all = map[string]any{"common_name": own.cn}
	if len(own.dns) > 0 {
		all["alt_names"], all["ip_sans"] = own.dns[0], own.addresses[0]
	}
	if op == "sign" {
		all["csr"] = csr(a.t, &x509.CertificateRequest{Subject: pkix.Name{CommonName: own.cn}})
	}
	maps.Copy(all, fields)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == gone{} })
	return k8s + "/" + op + "/" + own.role, all
}

// gone removes a field from a request.
type gone struct{}

// both adds an attempt with changed fields, by issue and by sign.
func (a *attempts) both(class, name string, fields map[string]any) {
	for _, op := range []string{"issue", "sign"} {
		path, all := a.ask(op, a.me.kubelet, fields)
		a.list = append(a.list, attempt{class, name + ", by " + op, a.me.kubelet, request{path: path, body: text(a.t, all)}})
	}
}

// body adds an attempt with a raw body, and the CSR added to it for sign.
func (a *attempts) body(name, body, contentType string) {
	for _, op := range []string{"issue", "sign"} {
		path, all := a.ask(op, a.me.kubelet, nil)
		raw := body
		if op == "sign" && contentType != "" {
			raw += "&csr=" + url.QueryEscape(all["csr"].(string))
		} else if op == "sign" {
			raw = strings.Replace(body, "{", `{"csr":`+text(a.t, all["csr"])+",", 1)
		}
		r := request{path: path, body: raw, header: map[string]string{}}
		if contentType != "" {
			r.header["Content-Type"] = contentType
		}
		a.list = append(a.list, attempt{shape, name + ", by " + op, a.me.kubelet, r})
	}
}

// csr adds attempts with a CSR, with and without the worker's own names in the request.
func (a *attempts) csr(name string, template *x509.CertificateRequest) {
	request64 := csr(a.t, template)
	for how, fields := range map[string]map[string]any{
		"beside its own names":       {"csr": request64},
		"with its own common name":   {"csr": request64, "alt_names": gone{}, "ip_sans": gone{}},
		"with nothing but the CSR":   {"csr": request64, "alt_names": gone{}, "ip_sans": gone{}, "common_name": gone{}},
		"asking for use of its SANs": {"csr": request64, "use_csr_sans": true, "use_csr_common_name": true},
	} {
		path, all := a.ask("sign", a.me.kubelet, fields)
		a.list = append(a.list, attempt{foreignCSR, name + ", " + how, a.me.kubelet, request{path: path, body: text(a.t, all)}})
	}
}

// never adds a request that must be refused.
func (a *attempts) never(class string, r request) {
	if r.body == "" && r.method == "" {
		_, all := a.ask("sign", a.me.kubelet, map[string]any{"use_csr_values": true})
		r.body = text(a.t, all)
	}
	if r.method == http.MethodPatch { // Vault refuses any other content type before it checks the policy
		r.header = map[string]string{"Content-Type": "application/merge-patch+json"}
	}
	name := r.method + " " + r.path
	if r.anonymous {
		name += ", without a token"
	}
	a.list = append(a.list, attempt{class: class, name: strings.ReplaceAll(name, "/", "|"), request: r})
}

func text(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func csr(t *testing.T, template *x509.CertificateRequest) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func TestToken_IssuesCertificatesForItsInstanceOnly(t *testing.T) {
	me, other := join(t), join(t)
	a := &attempts{t: t, me: me}
	a.names(other)
	a.shapes(other)
	a.csrs(other)
	a.paths(other)
	works := func(when string) {
		t.Helper()
		for _, op := range []string{"issue", "sign"} {
			path, all := a.ask(op, me.kubelet, nil)
			status, body := send(t, me.session.Client, request{path: path, body: text(t, all)})
			if got, _, err := judge(me.kubelet, status, body); got != harmless {
				t.Fatalf("%s the attempts: %s of its own certificate failed with %d %s %v, so refusals prove nothing", when, op, status, body, err)
			}
		}
	}
	works("before")
	var table tally
	for _, row := range a.list {
		t.Run(row.class+"/"+row.name, func(t *testing.T) {
			status, body := send(t, me.session.Client, row.request)
			got, _, err := judge(row.own, status, body)
			if err != nil {
				t.Errorf("%s %.600s: %v", row.request.path, row.request.body, err)
				got = "more than its own"
			}
			if row.own.role == "" && row.class != acme && status != 403 {
				t.Errorf("%s: want the policy to refuse it (403) before it reaches the mount, got %d %.200s", row.request.path, status, body)
			}
			table.add(row.class, got)
		})
	}
	works("after")
	table.report(t, anotherName, anotherAddress, widerName, otherKinds, cnTricks, lifetime, subject, shape, foreignCSR, otherPaths, anothersRole, widening, acme)
}

func (a *attempts) names(other member) {
	me := a.me
	parent := strings.SplitN(me.PrivateDNS, ".", 2)[1]
	for name, cn := range map[string]any{
		"another's common name": other.kubelet.cn, "another's host name as common name": other.PrivateDNS,
		"its own in capitals": strings.ToUpper(me.kubelet.cn), "its own with a dot behind it": me.kubelet.cn + ".",
		"its own with spaces around": " " + me.kubelet.cn + " ", "its own twice with a comma": me.kubelet.cn + "," + me.kubelet.cn,
		"its own and another's with a comma": me.kubelet.cn + "," + other.kubelet.cn, "its own and a null byte": me.kubelet.cn + "\x00" + other.kubelet.cn,
		"its own and a new line": me.kubelet.cn + "\n" + other.kubelet.cn, "a list": []string{other.kubelet.cn},
		"a list of both": []string{me.kubelet.cn, other.kubelet.cn}, "the master's": "system:kube-controller-manager", "a group's": "system:masters",
		"the proxy's": "system:kube-proxy", "a look-alike": strings.Replace(me.kubelet.cn, "e", "\u0435", 1), "a glob": "*",
	} {
		a.both(anotherName, "common name: "+name, map[string]any{"common_name": cn})
	}
	lists := func(class, field, mine, theirs string) {
		for name, value := range map[string]any{
			"alone": theirs, "behind its own": mine + "," + theirs, "before its own": theirs + "," + mine, "behind its own with a space": mine + ", " + theirs,
			"in a list": []string{theirs}, "in a list behind its own": []string{mine, theirs}, "in a list before its own": []string{theirs, mine},
			"in one element behind its own": []string{mine + "," + theirs}, "as JSON in a string": text(a.t, []string{mine, theirs}),
		} {
			a.both(class, field+" "+theirs+" "+name, map[string]any{field: value})
		}
	}
	lists(anotherName, "alt_names", me.PrivateDNS, other.PrivateDNS)
	for _, theirs := range []string{other.PrivateIP, "::ffff:" + other.PrivateIP, "2001:db8::5"} {
		lists(anotherAddress, "ip_sans", me.PrivateIP, theirs)
	}
	for _, theirs := range []string{"127.0.0.1", "::1", "0.0.0.0", "10.254.0.1", "::ffff:" + me.PrivateIP, me.PrivateIP + "/24", "2131755269", "127.016.01.09", "0x7f.1", "*"} {
		a.both(anotherAddress, "the address "+strings.ReplaceAll(theirs, "/", " slash "), map[string]any{"ip_sans": theirs})
	}
	a.both(anotherAddress, "an address as a host name", map[string]any{"alt_names": other.PrivateIP})
	for _, wide := range []string{"*." + parent, "*." + me.PrivateDNS, "*", "a." + me.PrivateDNS, parent, "localhost", "localdomain", "localhost.localdomain", "*.localhost", me.PrivateDNS + ".", me.PrivateDNS + ".evil.example", "system:node:" + other.PrivateDNS} {
		a.both(widerName, "alt name "+wide, map[string]any{"alt_names": wide})
		a.both(widerName, "alt name "+wide+" in a list behind its own", map[string]any{"alt_names": []string{me.PrivateDNS, wide}})
		a.both(widerName, "common name "+wide, map[string]any{"common_name": wide})
	}
	for name, fields := range map[string]map[string]any{
		"email in alt_names": {"alt_names": "root@" + me.PrivateDNS}, "email as common name": {"common_name": "root@" + me.PrivateDNS},
		"URI": {"uri_sans": "spiffe://cluster/worker"}, "URI list": {"uri_sans": []string{"spiffe://cluster/worker"}}, "URI in alt_names": {"alt_names": "spiffe://cluster/worker"},
		"other name": {"other_sans": "1.3.6.1.4.1.311.20.2.3;utf8:root@corp"}, "any other name": {"other_sans": "*"}, "user ID": {"user_ids": "root"}, "user ID list": {"user_ids": []string{"root"}},
		"email_sans": {"email_sans": "root@corp"}, "empty URI": {"uri_sans": ""}, "empty other name": {"other_sans": ""},
	} {
		a.both(otherKinds, name, fields)
	}
	for name, fields := range map[string]map[string]any{
		"exclude true": {"exclude_cn_from_sans": true}, "exclude true with only an address": {"exclude_cn_from_sans": true, "alt_names": gone{}},
		"exclude true and another's common name": {"exclude_cn_from_sans": true, "common_name": other.kubelet.cn}, "exclude as text": {"exclude_cn_from_sans": "true", "common_name": other.PrivateDNS},
		"exclude false and another's": {"exclude_cn_from_sans": false, "common_name": other.PrivateDNS}, "none at all": {"common_name": gone{}}, "empty": {"common_name": ""}, "a comma": {"common_name": ","},
		"an empty list": {"common_name": []string{}}, "only an address": {"common_name": gone{}, "alt_names": gone{}},
		"none and another's host name": {"common_name": gone{}, "alt_names": other.PrivateDNS}, "empty with an address of another": {"common_name": "", "ip_sans": other.PrivateIP}, "cn_validations": {"cn_validations": "disabled"},
	} {
		a.both(cnTricks, name, fields)
	}
	for name, fields := range map[string]map[string]any{
		"not_after for ever": {"not_after": "9999-12-31T23:59:59Z"}, "not_after empty": {"not_after": ""}, "a TTL of ten years": {"ttl": "87600h"}, "a TTL of an hour too many": {"ttl": "721h"},
		"a TTL of seconds beyond counting": {"ttl": "9223372036"}, "a negative TTL": {"ttl": "-1h"}, "no TTL": {"ttl": 0}, "a TTL as number": {"ttl": 315360000}, "a TTL that is no duration": {"ttl": "for ever"},
		"a list of TTLs": {"ttl": []string{"87600h"}}, "max_ttl": {"max_ttl": "87600h", "ttl": "87600h"}, "not_before_duration": {"not_before_duration": "87600h"}, "TTL and not_after": {"ttl": "1h", "not_after": "2099-01-01T00:00:00Z"},
	} {
		a.both(lifetime, name, fields)
	}
	for name, fields := range map[string]map[string]any{
		"serial_number": {"serial_number": "42"}, "serial_number empty": {"serial_number": ""}, "organization": {"organization": "system:masters"}, "ou": {"ou": "system:masters"}, "country": {"country": "XX"},
		"key_usage": {"key_usage": "CertSign,CRLSign"}, "ext_key_usage": {"ext_key_usage": "CodeSigning"}, "ext_key_usage_oids": {"ext_key_usage_oids": "1.3.6.1.5.5.7.3.9"}, "is_ca": {"is_ca": true},
		"basic constraints": {"basic_constraints_valid_for_non_ca": true}, "issuer_ref": {"issuer_ref": "other"}, "role": {"role": other.kubelet.role}, "name": {"name": other.kubelet.role}, "key type": {"key_type": "any", "key_bits": 0},
		"use_csr": {"use_csr_common_name": true, "use_csr_sans": true}, "use_csr_values": {"use_csr_values": true}, "policies": {"policy_identifiers": "2.5.29.32.0"}, "signature bits": {"signature_bits": 512}, "metadata": {"cert_metadata": "aGk="},
	} {
		a.both(subject, name, fields)
	}
}

func (a *attempts) shapes(other member) {
	me := a.me
	fill := strings.NewReplacer("THEIR_CN", other.kubelet.cn, "THEIR_DNS", other.PrivateDNS, "THEIR_IP", other.PrivateIP,
		"MY_CN", `"common_name":"`+me.kubelet.cn+`"`, "MY_DNS", me.PrivateDNS, "MY_IP", me.PrivateIP)
	for name, body := range map[string]string{
		"another's name in upper-case keys":              `{"COMMON_NAME":"THEIR_CN"}`,
		"its own, and another's in an upper-case key":    `{MY_CN,"COMMON_NAME":"THEIR_CN"}`,
		"alt_names in mixed case":                        `{MY_CN,"Alt_Names":"THEIR_DNS"}`,
		"addresses in upper case beside its own":         `{MY_CN,"ip_sans":"MY_IP","IP_SANS":"THEIR_IP"}`,
		"the key twice, its own first":                   `{MY_CN,"common_name":"THEIR_CN"}`,
		"the key twice, its own last":                    `{"common_name":"THEIR_CN",MY_CN}`,
		"alt_names twice":                                `{MY_CN,"alt_names":"MY_DNS","alt_names":"THEIR_DNS"}`,
		"addresses twice, its own last":                  `{MY_CN,"ip_sans":"THEIR_IP","ip_sans":"MY_IP"}`,
		"keys with spaces and dashes":                    `{MY_CN," alt_names":"THEIR_DNS","alt-names":"THEIR_DNS","ip_sans ":"THEIR_IP"}`,
		"an escaped key":                                 `{MY_CN,"alt\u005fnames":"THEIR_DNS"}`,
		"a name as object":                               `{MY_CN,"alt_names":{"0":"THEIR_DNS"}}`,
		"an address in a list of lists":                  `{MY_CN,"ip_sans":[["THEIR_IP"]]}`,
		"its own in a list of lists":                     `{MY_CN,"ip_sans":[["MY_IP","THEIR_IP"]]}`,
		"its own beside a nested list":                   `{MY_CN,"ip_sans":["MY_IP",["THEIR_IP"]]}`,
		"objects in a list":                              `{MY_CN,"alt_names":["MY_DNS",{"a":"THEIR_DNS"}]}`,
		"nulls":                                          `{MY_CN,"alt_names":null,"ip_sans":null}`,
		"a null among its own":                           `{MY_CN,"ip_sans":["MY_IP",null]}`,
		"a null common name beside another's address":    `{"common_name":null,"ip_sans":"THEIR_IP"}`,
		"a null common name":                             `{"common_name":null,"alt_names":"MY_DNS"}`,
		"numbers":                                        `{MY_CN,"alt_names":1,"ip_sans":2131755269}`,
		"booleans":                                       `{MY_CN,"alt_names":true,"ip_sans":false}`,
		"empty lists":                                    `{MY_CN,"alt_names":[],"ip_sans":[]}`,
		"empty strings":                                  `{MY_CN,"alt_names":"","ip_sans":"","uri_sans":"","other_sans":""}`,
		"commas alone":                                   `{MY_CN,"alt_names":",,","ip_sans":", ,"}`,
		"a list that holds an empty string":              `{MY_CN,"ip_sans":["MY_IP",""]}`,
		"everything below data":                          `{"data":{"common_name":"THEIR_CN"},MY_CN}`,
		"another document behind it":                     `{MY_CN}{"common_name":"THEIR_CN"}`,
		"a list for a body":                              `[{"common_name":"THEIR_CN"}]`,
		"a pointer and a wrapped value":                  `{MY_CN,"alt_names":{"value":"THEIR_DNS"},"$ref":"#/x"}`,
		"a format of its own choosing":                   `{MY_CN,"format":["pem"],"alt_names":"THEIR_DNS"}`,
		"a null byte between its own and another's name": `{MY_CN,"alt_names":"MY_DNS\u0000,THEIR_DNS"}`,
		"a new line between its own and another's name":  `{MY_CN,"alt_names":"MY_DNS\nTHEIR_DNS"}`,
		"a semicolon between its own and another's":      `{MY_CN,"alt_names":"MY_DNS;THEIR_DNS"}`,
	} {
		a.body(name, fill.Replace(body), "")
	}
	const form = "application/x-www-form-urlencoded"
	mine := "common_name=" + url.QueryEscape(me.kubelet.cn)
	a.body("a form with another's name", "common_name="+url.QueryEscape(other.kubelet.cn), form)
	a.body("a form with its own and another's host name", mine+"&alt_names="+me.PrivateDNS+"&alt_names="+other.PrivateDNS, form)
	a.body("a form with another's address", mine+"&ip_sans="+other.PrivateIP, form)
	a.body("a form with both common names", mine+"&common_name="+url.QueryEscape(other.kubelet.cn), form)
	a.body("a form of its own", mine+"&ip_sans="+me.PrivateIP, form)
	for _, op := range []string{"issue", "sign"} {
		path, all := a.ask(op, me.kubelet, nil)
		query := "?common_name=" + url.QueryEscape(other.kubelet.cn) + "&alt_names=" + other.PrivateDNS + "&ip_sans=" + other.PrivateIP
		for name, r := range map[string]request{
			"query beside the body": {path: path + query, body: text(a.t, all)}, "query alone": {path: path + query}, "query by GET": {method: "GET", path: path + query}, "query by LIST": {method: "LIST", path: path + query},
			"query by DELETE": {method: "DELETE", path: path + query}, "PATCH": {method: "PATCH", path: path, body: text(a.t, all), header: map[string]string{"Content-Type": "application/merge-patch+json"}},
			"another content type":          {path: path, body: strings.Replace(text(a.t, all), me.PrivateIP, other.PrivateIP, 1), header: map[string]string{"Content-Type": "text/plain"}},
			"another's role behind a slash": {path: path + "/../" + other.kubelet.role, body: text(a.t, all)}, "another's role behind an escaped slash": {path: path + "%2f..%2f" + other.kubelet.role, body: text(a.t, all)},
			"a slash at the end": {path: path + "/", body: text(a.t, all)}, "two slashes": {path: strings.Replace(path, "/"+op+"/", "//"+op+"//", 1), body: text(a.t, all)}, "the role in capitals": {path: k8s + "/" + op + "/" + strings.ToUpper(me.kubelet.role), body: text(a.t, all)},
			"another's name in a wrapped answer": {path: path, body: strings.Replace(text(a.t, all), me.kubelet.cn, other.kubelet.cn, 1), header: map[string]string{"X-Vault-Wrap-TTL": "60s"}},
		} {
			a.list = append(a.list, attempt{shape, name + ", by " + op, me.kubelet, r})
		}
		path, all = a.ask(op, me.proxy, nil)
		for field, value := range map[string]string{"alt_names": me.PrivateDNS, "ip_sans": me.PrivateIP, "common_name": me.kubelet.cn, "uri_sans": "a://b"} {
			more := maps.Clone(all)
			more[field] = value
			a.list = append(a.list, attempt{anotherName, field + " for a role that has none, by " + op, me.proxy, request{path: path, body: text(a.t, more)}})
		}
	}
}

// extension returns a critical extension for a CSR.
func extension(t *testing.T, value any, id ...int) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: id, Critical: true, Value: der}
}

func (a *attempts) csrs(other member) {
	cn := pkix.Name{CommonName: a.me.kubelet.cn}
	user := pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, Value: "root"}
	second := pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: other.kubelet.cn}
	// A user principal name, as an other name: [0] { OID, [0] UTF8String }.
	upn := []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append([]byte{6, 10, 43, 6, 1, 4, 1, 130, 55, 20, 2, 3, 0xa0, 6, 12, 4}, "root"...)}}
	for name, template := range map[string]*x509.CertificateRequest{
		"another's common name":  {Subject: pkix.Name{CommonName: other.kubelet.cn}},
		"two common names":       {Subject: pkix.Name{CommonName: a.me.kubelet.cn, ExtraNames: []pkix.AttributeTypeAndValue{second}}},
		"another's host name":    {Subject: cn, DNSNames: []string{a.me.PrivateDNS, other.PrivateDNS}},
		"a wildcard":             {Subject: cn, DNSNames: []string{"*." + a.me.PrivateDNS, "localhost"}},
		"another's address":      {Subject: cn, IPAddresses: []net.IP{net.ParseIP(a.me.PrivateIP), net.ParseIP(other.PrivateIP), net.ParseIP("2001:db8::5")}},
		"an email":               {Subject: cn, EmailAddresses: []string{"root@corp.example"}},
		"a URI":                  {Subject: cn, URIs: []*url.URL{{Scheme: "spiffe", Host: "cluster", Path: "/worker"}}},
		"an other name":          {Subject: cn, ExtraExtensions: []pkix.Extension{extension(a.t, upn, 2, 5, 29, 17)}},
		"a user ID":              {Subject: pkix.Name{CommonName: a.me.kubelet.cn, ExtraNames: []pkix.AttributeTypeAndValue{user}}},
		"the CA constraint":      {Subject: cn, ExtraExtensions: []pkix.Extension{extension(a.t, struct{ CA bool }{true}, 2, 5, 29, 19)}},
		"a CA's key usage":       {Subject: cn, ExtraExtensions: []pkix.Extension{extension(a.t, asn1.BitString{Bytes: []byte{0x06}, BitLength: 7}, 2, 5, 29, 15)}},
		"other uses of the key":  {Subject: cn, ExtraExtensions: []pkix.Extension{extension(a.t, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 3}, {2, 5, 29, 37, 0}}, 2, 5, 29, 37)}},
		"a serial number":        {Subject: pkix.Name{CommonName: a.me.kubelet.cn, SerialNumber: "42"}},
		"another's organization": {Subject: pkix.Name{CommonName: a.me.kubelet.cn, Organization: []string{"system:masters"}, OrganizationalUnit: []string{"x"}, Country: []string{"XX"}}},
		"all of these":           {Subject: pkix.Name{CommonName: other.kubelet.cn, Organization: []string{"system:masters"}, SerialNumber: "42"}, DNSNames: []string{other.PrivateDNS}, IPAddresses: []net.IP{net.ParseIP(other.PrivateIP)}, EmailAddresses: []string{"root@corp.example"}},
	} {
		a.csr(name, template)
	}
}
