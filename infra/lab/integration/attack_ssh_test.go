package integration

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const hosts = "alice_cluster/hosts" // the SSH mount of the workers with host certificates

// hostTTL is max_ttl of these workers' SSH role.
const hostTTL = 48 * time.Hour

// The classes of attempts for an SSH certificate.
const (
	userCertificate  = "user certificate"
	anotherPrincipal = "another's principal"
	widerPrincipal   = "wildcard, subdomain, parent, other spelling"
	noPrincipal      = "no principal"
	optionsAndKeyID  = "options, extensions, key ID and lifetime"
	sshElsewhere     = "other paths of the SSH mount"
	anothersHostRole = "another instance's SSH role"
	hostRoleAlone    = "by the SSH role alone, without the policy"
	removedHost      = "after the instance's end"
)

// withHostCertificates returns the lab's profiles whose workers have host certificates, and prepares Vault for them.
func withHostCertificates(t *testing.T) string {
	t.Helper()
	dir := edited(t,
		[3]string{"worker/profile.yaml", "outputs:\n", "outputs:\n  - {name: sshd, type: ssh-role, path: hosts/roles, template: sshd.json.tmpl}\n"},
		[3]string{"worker/policy.hcl.tmpl", `{{ pkiAccess "kubelet" }}`, "{{ pkiAccess \"kubelet\" }}\n\n{{ sshAccess \"sshd\" }}"})
	if err := os.WriteFile(filepath.Join(dir, "worker", "sshd.json.tmpl"), []byte(`{"ttl": "24h", "max_ttl": "48h"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if server := serverOf(t); !server.RequiresPrincipals() {
		t.Skipf("%s does not show that an SSH role requires principals: no instance of such a profile gets a grant", server)
	}
	setUp(t, "-templates-dir", dir)
	return dir
}

// hostKey returns a new public key in the form of a request.
func hostKey(t *testing.T) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(key))
}

// host is a worker that may have host certificates.
type host struct {
	fleet.Instance
	session *fleet.Session
	role    string
	all     []string // its principals, in the policy's order
}

func (h host) sign() string { return hosts + "/sign/" + h.role }

var errOptions = errors.New("got critical options and extensions")

// judgeHost classifies an answer as refused or as a harmless certificate: one for hosts, with principals of the host alone, without
// options, which ends in time. Anything else is an error.
func judgeHost(h host, status int, body []byte) (string, error) {
	if status >= 400 && status < 500 {
		return refused, nil
	}
	if status >= 500 {
		return "", fmt.Errorf("want a refusal (4xx), got a failure of Vault's, which proves nothing: %d %.300s", status, body)
	}
	var answer struct {
		Data struct {
			Key string `json:"signed_key"`
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("reading %.300s: %w", body, err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(answer.Data.Key))
	if err != nil {
		return "", fmt.Errorf("want a refusal, got %d %.300s: %w", status, body, err)
	}
	cert, isCertificate := key.(*ssh.Certificate)
	if !isCertificate {
		return "", fmt.Errorf("want a certificate, got %T", key)
	}
	foreign := func(p string) bool { return !slices.Contains(h.all, p) }
	ends := time.Unix(int64(cert.ValidBefore), 0) //nolint:gosec // a time of this century
	switch {
	case cert.CertType != ssh.HostCert:
		return "", fmt.Errorf("got a certificate of type %d, which is for users", cert.CertType)
	case len(cert.ValidPrincipals) == 0:
		return "", fmt.Errorf("got a certificate without principals, which holds for every host")
	case slices.ContainsFunc(cert.ValidPrincipals, foreign):
		return "", fmt.Errorf("got the principals %q, want some of %q", cert.ValidPrincipals, h.all)
	case len(cert.CriticalOptions)+len(cert.Extensions) > 0:
		return "", fmt.Errorf("%w: %v and %v", errOptions, cert.CriticalOptions, cert.Extensions)
	case cert.KeyId != h.role:
		return "", fmt.Errorf("got the key ID %q, want the role's name %q: a revocation list names it", cert.KeyId, h.role)
	case time.Until(ends) > hostTTL+time.Minute:
		return "", fmt.Errorf("got a certificate until %s", ends)
	}
	return harmless, nil
}

// hostAttempt is one request that must be refused, or at most get the worker's own host certificate.
type hostAttempt struct {
	class, name string
	path        string
	body        string
	by403       bool // whether the policy itself must refuse it
}

// hostAttempts collects the attempts.
type hostAttempts struct {
	t    *testing.T
	me   host
	key  string
	list []hostAttempt
}

// fields returns a request for all principals, changed by fields. A gone value removes its field.
func (a *hostAttempts) fields(change map[string]any) map[string]any {
	all := map[string]any{"public_key": a.key, "cert_type": "host", "valid_principals": strings.Join(a.me.all, ",")}
	maps.Copy(all, change)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == gone{} })
	return all
}

func (a *hostAttempts) add(class, name string, change map[string]any) {
	a.list = append(a.list, hostAttempt{class: class, name: name, path: a.me.sign(), body: text(a.t, a.fields(change)), by403: true})
}

func (a *hostAttempts) at(class, path string, change map[string]any) {
	a.list = append(a.list, hostAttempt{class: class, name: path, path: path, body: text(a.t, a.fields(change)), by403: true})
}

func TestSSHRole_SignsOnlyForItsHost(t *testing.T) {
	dir := withHostCertificates(t)
	by := variant(t, provision, map[string]string{"TEMPLATES_DIR": dir})
	enter := func() host {
		i := launch(t, fleet.Spec{Role: "alice-worker"})
		mustBy(t, by, i, "running", "provisioned")
		return host{Instance: i, session: login(t, i), role: i.ID + "-sshd", all: slices.Sorted(slices.Values([]string{i.PrivateDNS, i.PrivateIP}))}
	}
	me, other := enter(), enter()
	a := &hostAttempts{t: t, me: me, key: hostKey(t)}
	works := func(when string) {
		t.Helper()
		for form, change := range map[string]map[string]any{
			"all": {}, "its name": {"valid_principals": me.PrivateDNS}, "its address": {"valid_principals": me.PrivateIP}, "a TTL": {"ttl": "1h"},
		} {
			status, body := send(t, me.session.Client, request{path: me.sign(), body: text(t, a.fields(change))})
			if got, err := judgeHost(me, status, body); got != harmless {
				t.Fatalf("%s the attempts: %s failed with %d %.200s %v, so refusals prove nothing", when, form, status, body, err)
			}
		}
	}
	works("before")
	a.principals(other)
	a.kinds()
	a.paths(other)
	var table tally
	for _, row := range a.list {
		t.Run(row.class+"/"+strings.ReplaceAll(row.name, "/", "|"), func(t *testing.T) {
			status, body := send(t, me.session.Client, request{path: row.path, body: row.body})
			got, err := judgeHost(me, status, body)
			if err != nil {
				t.Errorf("%s %.400s: %v", row.path, row.body, err)
				got = "more than its own"
			}
			if row.by403 && got == refused && status != http.StatusForbidden && !strings.Contains(string(body), "Field validation failed") {
				t.Errorf("%s %.400s: want the policy to refuse it (403) before the role does, got %d %.200s", row.path, row.body, status, body)
			}
			table.add(row.class, got)
		})
	}
	works("after")
	a.roleAlone(&table)

	remove(t, me.Instance)
	if stored := vaultRead(t, hosts+"/roles/"+me.role); stored != nil {
		t.Errorf("want the SSH role removed with its instance, got %v", stored)
	}
	for _, principals := range []string{strings.Join(me.all, ","), me.PrivateDNS} {
		if status, body := send(t, me.session.Client, request{path: me.sign(), body: text(t, a.fields(map[string]any{"valid_principals": principals}))}); status != http.StatusForbidden {
			t.Errorf("%s: want it refused, got %d %.200s", removedHost, status, body)
		}
		table.add(removedHost, refused)
	}
	remove(t, other.Instance)
	table.report(t, userCertificate, anotherPrincipal, widerPrincipal, noPrincipal, optionsAndKeyID, sshElsewhere, anothersHostRole, hostRoleAlone, removedHost)
}

// widerThan returns principals that a host may not have beside another's: wider ones, and other spellings of its own.
func widerThan(h host) map[string]string {
	name, address := h.PrivateDNS, h.PrivateIP
	_, parent, _ := strings.Cut(name, ".")
	return map[string]string{
		"a wildcard": "*", "a wildcard of its domain": "*." + parent, "a wildcard below it": "*." + name, "a question mark": "?" + name[1:], "below it": "a." + name, "its domain": parent, "its first label": strings.Split(name, ".")[0],
		"a dot behind it": name + ".", "a dot before it": "." + name, "in capitals": strings.ToUpper(name), "a look-alike": strings.Replace(name, "e", "\u0435", 1), "a longer one": name + ".evil.example",
		"localhost": "localhost", "a network": address + "/24", "the address with a star": address[:len(address)-1] + "*", "a mapped address": "::ffff:" + address, "with a port": "[" + address + "]:22", "a user at it": "root@" + name,
		"root": "root", "a negated one": "!" + name, "a template": "{{identity.entity.name}}", "a space within": name[:4] + " " + name[4:], "a null byte": name + "\x00", "a new line": name + "\n", "a quote": name + `"`,
	}
}

// principals adds the attempts for other principals.
func (a *hostAttempts) principals(other host) {
	mine := strings.Join(a.me.all, ",")
	for what, theirs := range map[string]string{"name": other.PrivateDNS, "address": other.PrivateIP} {
		for how, value := range map[string]any{
			"alone": theirs, "behind its own": mine + "," + theirs, "before its own": theirs + "," + mine, "between its own": a.me.all[0] + "," + theirs + "," + a.me.all[1], "behind one": a.me.all[0] + "," + theirs,
			"behind a space": mine + ", " + theirs, "behind commas": mine + ",," + theirs, "in a list": []string{theirs}, "in a list behind its own": []string{mine, theirs}, "in a list of all": append(slices.Clone(a.me.all), theirs),
			"in one element": []string{mine + "," + theirs}, "in a list of lists": []any{[]string{theirs}}, "as JSON in a string": text(a.t, []string{mine, theirs}), "in an object": map[string]any{"0": theirs},
			"behind a line": mine + "\n" + theirs, "behind a semicolon": mine + ";" + theirs, "behind a null byte": mine + "\x00" + theirs,
		} {
			a.add(anotherPrincipal, what+", "+how, map[string]any{"valid_principals": value})
		}
		for _, key := range []string{"VALID_PRINCIPALS", "Valid_Principals", "valid-principals", "valid_principals ", "principals", "allowed_domains", "default_user", "username"} {
			a.add(anotherPrincipal, what+", as "+key+" beside its own", map[string]any{key: theirs})
			a.add(anotherPrincipal, what+", as "+key+" alone", map[string]any{key: theirs, "valid_principals": gone{}})
		}
	}
	for name, principal := range widerThan(a.me) {
		a.add(widerPrincipal, name, map[string]any{"valid_principals": principal})
		a.add(widerPrincipal, name+", behind its own", map[string]any{"valid_principals": mine + "," + principal})
	}
	for name, value := range map[string]any{
		"left out": gone{}, "empty": "", "a space": " ", "a comma": ",", "commas and spaces": " , ,", "null": nil, "an empty list": []string{}, "a list of nothing": []string{""}, "a list of null": []any{nil}, "an empty object": map[string]any{},
		"false": false, "zero": 0, "a line": "\n", "its own with a comma behind": mine + ",", "its own with a comma before": "," + mine,
	} {
		a.add(noPrincipal, name, map[string]any{"valid_principals": value})
	}
}

// kinds adds the attempts for other kinds of certificates.
func (a *hostAttempts) kinds() {
	for name, change := range map[string]map[string]any{
		"user": {"cert_type": "user"}, "left out": {"cert_type": gone{}}, "empty": {"cert_type": ""}, "null": {"cert_type": nil}, "in capitals": {"cert_type": "USER"}, "a list of both": {"cert_type": []string{"host", "user"}},
		"both, with a comma": {"cert_type": "host,user"}, "a list of user": {"cert_type": []string{"user"}}, "a number": {"cert_type": 1}, "host in capitals": {"cert_type": "HOST"}, "host with a space": {"cert_type": "host "},
		"beside an upper-case key": {"CERT_TYPE": "user"}, "an upper-case key alone": {"CERT_TYPE": "user", "cert_type": gone{}}, "for root": {"cert_type": "user", "valid_principals": "root"}, "for its own name": {"cert_type": "user", "valid_principals": a.me.PrivateDNS},
		"for anybody": {"cert_type": "user", "valid_principals": ""}, "with the role's field": {"allow_user_certificates": true, "cert_type": "user"},
	} {
		a.add(userCertificate, name, change)
	}
	for name, change := range map[string]map[string]any{
		"permit-pty": {"extensions": map[string]any{"permit-pty": ""}}, "all extensions": {"extensions": map[string]any{"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": "", "permit-X11-forwarding": ""}},
		"an extension of its own": {"extensions": map[string]any{"x@evil.example": "y"}}, "no extensions": {"extensions": map[string]any{}}, "an extension without a name": {"extensions": map[string]any{"": "x"}},
		"force-command": {"critical_options": map[string]any{"force-command": "/bin/sh"}}, "source-address": {"critical_options": map[string]any{"source-address": "0.0.0.0/0"}}, "the option none": {"critical_options": map[string]any{"none": ""}},
		"no options": {"critical_options": map[string]any{}}, "another's key ID": {"key_id": "i-0123456789abcdef0-sshd"}, "an empty key ID": {"key_id": ""}, "its own key ID": {"key_id": a.me.role}, "a key ID in capitals": {"KEY_ID": "x"},
		"a TTL of ten years": {"ttl": "87600h"}, "a TTL of an hour too many": {"ttl": "49h"}, "max_ttl": {"max_ttl": "87600h", "ttl": "87600h"}, "not_after": {"not_after": "2099-01-01T00:00:00Z"}, "not_before_duration": {"not_before_duration": "87600h"},
		"a negative TTL": {"ttl": "-1h"}, "the signer": {"algorithm_signer": "ssh-rsa"}, "another issuer": {"issuer_ref": "other"}, "another role": {"role": "i-0123456789abcdef0-sshd"}, "empty principals allowed": {"allow_empty_principals": true},
	} {
		a.add(optionsAndKeyID, name, change)
	}
	for i, row := range a.list {
		// The role bounds any TTL. Vault from 1.21 on compares elements without spaces around them.
		if strings.Contains(row.name, "TTL") || row.name == "host with a space" {
			a.list[i].by403 = false
		}
	}
}

// paths adds the attempts at other paths of the mount.
func (a *hostAttempts) paths(other host) {
	for _, end := range []string{
		"issue/" + a.me.role, "issue/" + other.role, "creds/" + a.me.role, "roles/" + a.me.role, "roles/" + other.role, "roles/mine", "roles", "config/ca", "config/zeroaddress", "lookup", "sign", "sign/default", "sign/" + a.me.ID,
		"tidy/dynamic-keys", "issuer/default", "issuer/default/sign/" + a.me.role, "config/issuers", "issuers/import", "sign/" + strings.ToUpper(a.me.role), "sign/" + a.me.role + "/x", "sign/../sign/" + other.role, "sign//" + other.role,
	} {
		a.at(sshElsewhere, hosts+"/"+end, map[string]any{"key_type": "ca", "allow_user_certificates": true, "allowed_users": "*"})
	}
	for _, principals := range []string{other.PrivateDNS, other.PrivateIP, a.me.PrivateDNS, strings.Join(a.me.all, ","), ""} {
		a.at(anothersHostRole, other.sign(), map[string]any{"valid_principals": principals})
	}
	a.at(anothersHostRole, other.sign(), map[string]any{"cert_type": "user", "valid_principals": "root"})
	a.at(anothersHostRole, hosts+"/sign/"+a.me.ID+"-other", nil)
}

// roleAlone makes the attempts without the instance's policy, which the role alone must refuse, or sign without harm: it may sign a
// certificate with an option that OpenSSH refuses.
func (a *hostAttempts) roleAlone(table *tally) {
	const policy = "lab-shared-hosts"
	vaultSet(a.t, "sys/policies/acl/"+policy, map[string]any{"policy": `path "` + hosts + `/sign/*" { capabilities = ["update"] }` + "\n" + `path "` + hosts + `/issue/*" { capabilities = ["update"] }`})
	client := clientOn(a.t, fleet.Instance{}, tokenWith(a.t, policy))
	for _, row := range a.list {
		if row.path != a.me.sign() {
			continue
		}
		for _, op := range []string{"/sign/", "/issue/"} {
			body := row.body
			if op == "/issue/" {
				body = strings.Replace(body, `"public_key"`, `"key_type":"ed25519","unused"`, 1)
			}
			status, answer := send(a.t, client, request{path: hosts + op + a.me.role, body: body})
			got, err := judgeHost(a.me, status, answer)
			isNoOption := errors.Is(err, errOptions) && (row.name == "the option none" || row.name == "an extension without a name")
			switch {
			case isNoOption:
				got = harmless
			case err != nil:
				a.t.Errorf("%s, %s, by %s and the role alone: %v", row.class, row.name, op, err)
				got = "more than its own"
			}
			table.add(hostRoleAlone, got)
		}
	}
}

// A role edited or deleted by hand is repaired, the doctor knows the mount, and another deployment's mount is refused.
func TestSSHRole_IsRepairedAndExamined(t *testing.T) {
	dir := withHostCertificates(t)
	env := map[string]string{"TEMPLATES_DIR": dir}
	by, comparing := variant(t, provision, env), variant(t, reconcile, env)
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, by, i, "running", "provisioned")
	only := rec.Input{InstanceIDs: []string{i.ID}}
	path := hosts + "/roles/" + i.ID + "-sshd"
	role := vaultRead(t, path)
	role["allow_user_certificates"], role["allowed_users"] = true, "*"
	vaultWrite(t, path, role)
	repaired(t, comparing, only, []string{"ssh-role changed update " + path + " [allow_user_certificates allowed_users]"}, "allow_user_certificates")
	vaultDelete(t, path)
	repaired(t, comparing, only, []string{"ssh-role missing create " + path}, "")
	if a := runReconcile(t, comparing, only); a.Scanned.SSHRoles == 0 {
		t.Errorf("want the SSH roles counted, got %+v", a.Scanned)
	}

	vaultWrite(t, hosts+"/roles/users", map[string]any{"key_type": "ca", "allow_user_certificates": true, "allowed_users": "*"})
	_, checks := examine(t, comparing)
	if c := checks["ssh "+hosts]; !c.OK || !strings.Contains(c.Detail, "@cert-authority <names> ssh-ed25519 ") {
		t.Errorf("want the doctor to show the line for clients, got %+v", c)
	}
	if c := checks["ssh owner "+hosts]; !c.OK {
		t.Errorf("want the mount marked by the set-up, got %+v", c)
	}
	if c := checks["ssh roles "+hosts]; c.OK || !strings.Contains(c.Detail, "any name: users") {
		t.Errorf("want the doctor to name a role that is not an instance's, got %+v", c)
	}
	for _, name := range []string{"vault rights", "vault bounds"} {
		if c := checks[name]; !c.OK {
			t.Errorf("want exactly the rights that the function needs, got %+v", c)
		}
	}
	vaultDelete(t, hosts+"/roles/users")

	// A role of a lost record is found by its name.
	forgotten := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, by, forgotten, "running", "provisioned")
	terminate(t, forgotten)
	repaired(t, comparing, rec.Input{InstanceIDs: []string{forgotten.ID}}, []string{"record orphaned delete instance#" + forgotten.ID}, "")
	if vaultRead(t, hosts+"/roles/"+forgotten.ID+"-sshd") != nil {
		t.Error("want the SSH role removed by reconcile")
	}

	ours, _ := vaultRead(t, "sys/mounts/"+hosts+"/tune")["description"].(string)
	vaultWrite(t, "sys/mounts/"+hosts+"/tune", map[string]any{"description": "managed-by: vault-ec2-provisioner, deployment: another"})
	c := &contention{t: t}
	fresh := launch(t, fleet.Spec{Role: "alice-worker"})
	c.refuses("SSH mount of another deployment", variant(t, provision, env), fresh, "SSH mount "+hosts, "deployment another")
	vaultWrite(t, "sys/mounts/"+hosts+"/tune", map[string]any{"description": ours})
	remove(t, i)
	terminate(t, fresh)
}
