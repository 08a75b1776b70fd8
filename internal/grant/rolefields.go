package grant

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keyBits are the lengths of the keys of each type that Vault makes. Of a type without lengths Vault stores any number and ignores
// it, since roles of before 1.10 have key_bits 2048 with every type.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#key_bits
var keyBits = map[string][]int64{
	"rsa": {2048, 3072, 4096, 8192}, "ec": {224, 256, 384, 521}, "ed25519": nil, "any": nil,
}

// keyUsages and extKeyUsages are the names that Vault knows, in any case. It leaves any other name out of certificates.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#key_usage
var (
	keyUsages = []string{"DigitalSignature", "ContentCommitment", "KeyEncipherment", "DataEncipherment", "KeyAgreement", "CertSign",
		"CRLSign", "EncipherOnly", "DecipherOnly"}
	extKeyUsages = []string{"Any", "ServerAuth", "ClientAuth", "CodeSigning", "EmailProtection", "IPSECEndSystem", "IPSECTunnel",
		"IPSECUser", "TimeStamping", "OCSPSigning", "MicrosoftServerGatedCrypto", "NetscapeServerGatedCrypto"}
)

// issuerRef is the form of an issuer's name or ID, and of "default".
// https://developer.hashicorp.com/vault/api-docs/secret/pki#update-issuer
var issuerRef = regexp.MustCompile(`^\w(?:[\w.-]*\w)?$`)

// fieldFault is a fault of one field in a template of a PKI role.
type fieldFault struct {
	field string
	err   error
}

// fieldFaults collects the faults of the fields of one PKI role.
type fieldFaults struct {
	fields map[string]any
	faults []fieldFault
}

// want adds a fault of a field unless ok.
func (f *fieldFaults) want(ok bool, field, format string, args ...any) {
	if !ok {
		f.faults = append(f.faults, fieldFault{field, breaksRule(format, args...)})
	}
}

func (f *fieldFaults) number(field string) int64 { n, _ := f.fields[field].(int64); return n }
func (f *fieldFaults) text(field string) string  { s, _ := f.fields[field].(string); return s }
func (f *fieldFaults) list(field string) []string {
	l, _ := f.fields[field].([]string)
	return l
}

// checkRoleFields returns the faults of the free fields of a PKI role: values that Vault refuses, by which it cannot issue, or
// which it drops without an error on some supported version, and certificates that can live longer than longest. Vault itself is
// asked only when the first instance starts, and an unknown usage is missing then without any error.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#create-update-role
func checkRoleFields(free map[string]any, longest time.Duration) []fieldFault {
	f := &fieldFaults{fields: free}
	f.times(longest)
	f.keys()
	f.usages()
	for _, name := range slices.Sorted(maps.Keys(free)) {
		for _, text := range f.list(name) {
			f.want(text == strings.TrimSpace(text), name, "%s: %q begins or ends with a space, which Vault drops: remove it", name, text)
		}
	}
	both := free["no_store"] == true && free["generate_lease"] == true
	f.want(!both, "generate_lease", "generate_lease: Vault drops it where no_store is true: leave one of them out")
	f.want(issuerRef.MatchString(f.text("issuer_ref")), "issuer_ref",
		`issuer_ref: %q is no name or ID of an issuer: write one of the mount's issuers, or leave it out for the default one`, f.text("issuer_ref"))
	return f.faults
}

// times checks durations. A role without max_ttl would have the mount's, which is often years.
func (f *fieldFaults) times(longest time.Duration) {
	ttl, most := f.number("ttl"), f.number("max_ttl")
	f.want(most != 0, "max_ttl", "max_ttl is required: without it a certificate lives as long as the PKI mount allows")
	f.want(most <= int64(longest/time.Second), "max_ttl", "max_ttl is %s, longer than MAX_CERTIFICATE_TTL (%s)", seconds(most), longest)
	f.want(most == 0 || ttl <= most, "ttl", "ttl is %s, longer than max_ttl (%s), which Vault refuses: shorten it, or leave it out for max_ttl", seconds(ttl), seconds(most))
	before := f.number("not_before_duration")
	f.want(before <= math.MaxInt64/int64(time.Second), "not_before_duration", "not_before_duration is %s, longer than Vault counts: shorten it", seconds(before))
}

// seconds returns a number of seconds as text. It is too long for a time.Duration in a profile with that fault.
func seconds(n int64) string {
	if n > math.MaxInt64/int64(time.Second) {
		return fmt.Sprintf("%ds", n)
	}
	return (time.Duration(n) * time.Second).String()
}

func (f *fieldFaults) keys() {
	kind, bits, hash := f.text("key_type"), f.number("key_bits"), f.number("signature_bits")
	lengths, known := keyBits[kind]
	f.want(known, "key_type", "key_type: %q is unknown to Vault: write one of %s", kind, strings.Join(slices.Sorted(maps.Keys(keyBits)), ", "))
	isMade := bits == 0 || lengths == nil || slices.Contains(lengths, bits)
	f.want(isMade, "key_bits", "key_bits: Vault makes no %s key of %d bits: write one of %s", kind, bits, numbers(lengths))
	hashes := []int64{256, 384, 512}                                     // https://developer.hashicorp.com/vault/api-docs/secret/pki#signature_bits
	isHash := hash == 0 || kind == "ec" || slices.Contains(hashes, hash) // for ec Vault stores any number
	f.want(isHash, "signature_bits", "signature_bits: Vault does not sign with a hash of %d bits: write one of %s", hash, numbers(hashes))
}

func numbers(list []int64) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.FormatInt(n, 10)
	}
	return strings.Join(texts, ", ")
}

func (f *fieldFaults) usages() {
	f.names("key_usage", keyUsages)
	f.names("ext_key_usage", extKeyUsages)
	const form = "write numbers with dots between them, each below 2^31, as in 1.3.6.1.5.5.7.3.1"
	for _, id := range f.list("ext_key_usage_oids") {
		f.want(isOID(id), "ext_key_usage_oids", "ext_key_usage_oids: Vault cannot issue with the OID %q: %s", id, form)
	}
	for _, id := range f.list("policy_identifiers") {
		f.want(isOID(policyOID(id)), "policy_identifiers", "policy_identifiers: Vault cannot issue with the OID %q: %s", id, form)
	}
}

// names checks that Vault knows each element of a list, in any case.
func (f *fieldFaults) names(field string, known []string) {
	for _, name := range f.list(field) {
		isKnown := slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, strings.TrimSpace(name)) })
		f.want(isKnown, field, "%s: %q is unknown to Vault, which leaves it out of certificates: write one of %s", field, name, strings.Join(known, ", "))
	}
}

// isOID reports whether Vault can write an OID into a certificate and read it again. It reads arcs of up to 31 bits. The first two
// arcs are one number in a certificate: ITU-T X.690, 8.19.4.
func isOID(text string) bool {
	var arcs []int64
	for arc := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil {
			return false
		}
		arcs = append(arcs, int64(n))
	}
	if len(arcs) < 2 || arcs[0] > 2 {
		return false
	}
	last := int64(39)
	if arcs[0] == 2 {
		last = math.MaxInt32 - 80
	}
	return arcs[1] <= last
}

// policyOID returns the OID of a policy identifier, which is an OID or a JSON object with one; empty for a JSON object that has
// none, or a key that Vault drops.
func policyOID(text string) string {
	if !strings.HasPrefix(text, "{") {
		return text
	}
	entry, err := decodeObject(text)
	for key := range entry {
		if !slices.Contains([]string{"oid", "cps", "notice"}, key) {
			return ""
		}
	}
	if err != nil {
		return ""
	}
	id, _ := entry["oid"].(string)
	return id
}
