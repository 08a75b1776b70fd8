package vault_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

const (
	mountInfo   = "sys/internal/ui/mounts/auth/aws"
	aliasFolder = "identity/entity-alias/id"
	twoMounts   = `{"request_id":"x","data":{"key_info":{
		"1":{"name":"i-1","canonical_id":"e-1","mount_accessor":"auth_aws_1","metadata":{"a":["b",{"c":null}]}},
		"2":{"name":"i-2","canonical_id":"e-2","mount_accessor":"auth_ldap_1"}},"keys":["1","2"]},"warnings":null}`
)

// before returns the beginning of an answer, up to a text.
func before(answer, text string) string {
	begin, _, _ := strings.Cut(answer, text)
	return begin
}

func TestAliases_AreCompleteOrAnError(t *testing.T) {
	keysFirst := `{"wrap_info":{"a":[[1],{}]},"data":{"keys":["1"],"key_info":{"1":{"name":"i-1","canonical_id":"e-1","mount_accessor":"auth_aws_1"}}}}`
	for name, row := range map[string]struct {
		status int
		body   string
		want   int
		says   string // of the error; empty for none
	}{
		"two mounts":         {http.StatusOK, twoMounts, 1, ""},
		"in another order":   {http.StatusOK, keysFirst, 1, ""},
		"none":               {http.StatusNotFound, `{"errors":[]}`, 0, ""},
		"half an answer":     {http.StatusOK, twoMounts[:200], 0, "EOF"},
		"half of the second": {http.StatusOK, before(twoMounts, "e-2"), 0, "EOF"},
		"without its end":    {http.StatusOK, before(twoMounts, `},"keys"`), 0, "EOF"},
		"keys alone":         {http.StatusOK, `{"data":{"keys":["1"]}}`, 0, "no key_info"},
		"no data":            {http.StatusOK, `{"data":null}`, 0, "where { is expected"},
		"no right to list":   {http.StatusForbidden, `{"errors":["permission denied"]}`, 0, "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t)
			s.answer(mountInfo, http.StatusOK, `{"data":{"accessor":"auth_aws_1"}}`)
			s.answer(aliasFolder, row.status, row.body)
			got, err := c.Aliases(t.Context(), "aws")
			switch {
			case row.says == "" && (err != nil || len(got) != row.want || (row.want == 1 && got[0] != vault.Alias{Name: "i-1", EntityID: "e-1"})):
				t.Errorf("want the alias on auth/aws alone, got %+v, %v", got, err)
			case row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), "listing "+aliasFolder)):
				t.Errorf("want an error that names the folder and says %q, got %v, %v", row.says, got, err)
			case errors.Is(err, vault.ErrTooLong):
				t.Errorf("the list is not too long: %v", err)
			}
		})
	}
}

// many has Vault answer with n aliases of other mounts, as long as real ones, and one of this mount at the end.
func (s *server) many(n int) {
	s.answer(mountInfo, http.StatusOK, `{"data":{"accessor":"auth_aws_1"}}`)
	s.answers[aliasFolder] = func(w http.ResponseWriter, _ *http.Request) {
		out := bufio.NewWriter(w)
		fmt.Fprint(out, `{"request_id":"x","lease_id":"","renewable":false,"lease_duration":0,"data":{"key_info":{`)
		const of = `%q:{"canonical_id":"6f3cbb7e-0d0a-4a35-8a0e-%012d","custom_metadata":{},"local":false,"metadata":{"service_account_name":"default","service_account_namespace":"team-%d"},` +
			`"mount_accessor":%q,"mount_path":"auth/kubernetes/","mount_type":"kubernetes","name":%q},`
		for i := range n {
			fmt.Fprintf(out, of, fmt.Sprintf("0c7b2a9c-35f1-44d6-9d12-%012d", i), i, i, "auth_kubernetes_1", fmt.Sprintf("name-%d", i))
		}
		fmt.Fprint(out, `"z":{"canonical_id":"e-1","mount_accessor":"auth_aws_1","name":"i-1"}},"keys":[`)
		for i := range n {
			fmt.Fprintf(out, `"0c7b2a9c-35f1-44d6-9d12-%012d",`, i)
		}
		fmt.Fprint(out, `"z"]},"wrap_info":null,"warnings":null,"auth":null}`)
		_ = out.Flush() // the client may have read enough
	}
}

// An answer of 300,000 aliases has 100 MB; decoded as a whole it took 330 MB. A sixth of it shows the same, and is read in time on a slow
// machine too.
func TestAliases_OfOtherMountsTakeNoMemory(t *testing.T) {
	const aliases, most = 50_000, 20 << 20
	s, c := newServer(t)
	s.many(aliases)
	runtime.GC()
	var start, now runtime.MemStats
	runtime.ReadMemStats(&start)
	highest, done := uint64(0), make(chan struct{})
	sampled := make(chan struct{})
	go func() {
		defer close(sampled)
		for {
			runtime.ReadMemStats(&now)
			highest = max(highest, now.HeapInuse)
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	got, err := c.Aliases(t.Context(), "aws")
	close(done)
	<-sampled
	if err != nil || len(got) != 1 {
		t.Fatalf("want the one alias of the mount, got %d, %v", len(got), err)
	}
	if more := int64(highest) - int64(start.HeapInuse); more > most {
		t.Errorf("want at most %d MB for %d aliases of other mounts, got %d MB", most>>20, aliases, more>>20)
	}
}

func TestAliases_BeyondTheBoundAreTooLong(t *testing.T) {
	s, _ := newServer(t)
	s.many(1000)
	c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Login: (&logins{ttl: 60}).login, MaxAliases: 1000})
	if got, err := c.Aliases(t.Context(), "aws"); !errors.Is(err, vault.ErrTooLong) || fault.KindOf(err) != fault.Retry || got != nil {
		t.Errorf("1001 aliases with a bound of 1000: want ErrTooLong and none of them, got %v, %v", got, err)
	}
	s.many(999)
	if got, err := c.Aliases(t.Context(), "aws"); err != nil || len(got) != 1 {
		t.Errorf("1000 aliases with a bound of 1000: want the mount's, got %v, %v", got, err)
	}
}
