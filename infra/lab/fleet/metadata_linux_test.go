package fleet

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

var inVPC = Instance{
	ID: "i-0123456789abcdef0", PrivateIP: "10.1.1.4", PrivateDNS: "ip-10-1-1-4.ec2.internal", IPv6s: []string{"2001:db8::4"},
	AccountID: "123456789012", Region: "us-east-1",
}

// identify runs the shipped script that reads the metadata service, and returns the values that it writes, or its output.
func identify(t *testing.T, env ...string) (values map[string]string, output string, err error) {
	t.Helper()
	run, state := t.TempDir(), t.TempDir()
	script := exec.CommandContext(t.Context(), filepath.Join("..", "..", "instance", "usr/local/lib/vault-agent/identity"))
	script.Env = append([]string{"PATH=" + os.Getenv("PATH"), "RUNTIME_DIRECTORY=" + run, "STATE_DIRECTORY=" + state}, env...)
	out, err := script.CombinedOutput()
	text, _ := os.ReadFile(filepath.Join(run, "instance.env"))
	values = map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key] = value
	}
	return values, string(out), err
}

func service(t *testing.T, i Instance, o MetadataOptions) *Metadata {
	t.Helper()
	f, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.Metadata(i, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func TestIdentity_ReadsWhatTheServiceHas(t *testing.T) {
	onlyIPv4 := inVPC
	onlyIPv4.IPv6s = nil
	for _, c := range []struct {
		name     string
		instance Instance
		options  MetadataOptions
		env      []string
		want     map[string]string // differences from the values of an instance with everything
		says     string
	}{
		{name: "everything", instance: inVPC},
		{name: "no IPv6 address", instance: onlyIPv4, want: map[string]string{"INTERNAL_IPV6": ""}},
		{name: "IPv6 only", instance: inVPC, options: MetadataOptions{IPv6Only: true}, want: map[string]string{"INTERNAL_IPV4": ""}},
		{name: "another domain in the VPC", instance: inVPC, options: MetadataOptions{Domain: "corp.example"}, want: map[string]string{"FQDN": "ip-10-1-1-4.corp.example"}},
		{name: "two domains in the VPC", instance: inVPC, options: MetadataOptions{Domain: "a.example ip-10-1-1-4.b.example"}, want: map[string]string{"FQDN": "ip-10-1-1-4.a.example"}},
		{name: "no host name", instance: inVPC, options: MetadataOptions{Missing: []string{"local-hostname"}}, want: map[string]string{"FQDN": ""}, says: "has no local-hostname: set VAULT_FQDN"},
		{name: "no host name needed", instance: inVPC, options: MetadataOptions{Missing: []string{"local-hostname"}}, env: []string{"VAULT_FQDN=a.example"}, want: map[string]string{"FQDN": "a.example"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := service(t, c.instance, c.options)
			got, output, err := identify(t, append(c.env, "AWS_EC2_METADATA_SERVICE_ENDPOINT="+m.URL)...)
			want := map[string]string{
				"INSTANCE_ID": inVPC.ID, "FQDN": inVPC.PrivateDNS, "INTERNAL_IPV4": inVPC.PrivateIP, "INTERNAL_IPV6": inVPC.IPv6s[0],
				"AWS_EC2_METADATA_SERVICE_ENDPOINT": m.URL,
			}
			maps.Copy(want, c.want)
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("got %v, %v: %s, want %v", got, err, output, want)
			}
			if (c.says == "") != (output == "") || !strings.Contains(output, c.says) {
				t.Errorf("got the output %q, want %q", output, c.says)
			}
		})
	}
}

func TestIdentity_FailsWithoutIDOrAddress(t *testing.T) {
	for says, missing := range map[string][]string{
		"the metadata service answered the instance ID ''":     {"instance-id"},
		"the metadata service has neither local-ipv4 nor ipv6": {"local-ipv4", "ipv6"},
	} {
		m := service(t, inVPC, MetadataOptions{Missing: missing})
		if values, output, err := identify(t, "AWS_EC2_METADATA_SERVICE_ENDPOINT="+m.URL); err == nil || !strings.Contains(output, says) || len(values) > 0 {
			t.Errorf("without %v: got %v, %v: %s, want no values and %q", missing, values, err, output, says)
		}
	}
}

// In a network namespace of the test's own, EC2's addresses of the service are as real as on an instance.
func TestIdentity_FindsTheServiceByIPv4OrIPv6(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: the fixed addresses of the metadata service are not tested")
	}
	for _, address := range []string{"169.254.169.254", "fd00:ec2::254"} {
		t.Run(address, func(t *testing.T) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
				if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
					t.Errorf("making a network namespace: %v", err)
					return
				}
				isIPv6 := strings.Contains(address, ":")
				bits, listen, url := "/32", address+":80", "http://"+address
				if isIPv6 {
					bits, listen, url = "/128", "["+address+"]:80", "http://["+address+"]"
				}
				for _, arguments := range []string{"link set lo up", "addr add " + address + bits + " dev lo"} {
					if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
						t.Errorf("ip %s: %v: %s", arguments, err, out)
						return
					}
				}
				f, err := New(Options{})
				if err != nil {
					t.Error(err)
					return
				}
				m, err := f.Metadata(inVPC, MetadataOptions{Listen: listen, IPv6Only: isIPv6})
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = m.Close() }()
				got, output, err := identify(t)
				if want := fmt.Sprint(url, inVPC.ID); err != nil || got["AWS_EC2_METADATA_SERVICE_ENDPOINT"]+got["INSTANCE_ID"] != want {
					t.Errorf("got %v, %v: %s, want %s from %s", got, err, output, inVPC.ID, url)
				}
			}()
			<-done
		})
	}
}
