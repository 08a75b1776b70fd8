package tryout

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"go.yaml.in/yaml/v3"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
)

// notInMoto are resources that moto's CloudFormation does not make, or does not delete.
var notInMoto = map[string]bool{
	"AWS::EC2::VPCCidrBlock": true, "AWS::EC2::EIPAssociation": true, "AWS::SecretsManager::Secret": true, "AWS::AutoScaling::LifecycleHook": true,
	"AWS::AutoScaling::WarmPool": true,
	// moto never deletes a route table, and so no network that has one.
	"AWS::EC2::RouteTable": true, "AWS::EC2::Route": true, "AWS::EC2::SubnetRouteTableAssociation": true,
	// Vault is the lab's.
	"AWS::EC2::Instance": true,
}

// formation is CloudFormation before moto: it takes out of the tryout's own templates what moto cannot make, and plays what Vault's
// instance does at its start, which is to write the two secrets.
type formation struct {
	t     *testing.T
	world *lab.World
	proxy *httputil.ReverseProxy
}

func startFormation(t *testing.T, w *lab.World) string {
	t.Helper()
	to, err := url.Parse(w.MotoURL)
	if err != nil {
		t.Fatal(err)
	}
	f := &formation{t: t, world: w, proxy: httputil.NewSingleHostReverseProxy(to)}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return server.URL
}

// ServeHTTP passes a request on, with its template changed.
func (f *formation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	form, err := url.ParseQuery(string(body))
	if err == nil && strings.Contains(form.Get("TemplateBody"), "vault-ec2 tryout") {
		adapted, err := f.adapt(r.Context(), form.Get("TemplateBody"))
		if err != nil {
			f.t.Error(err)
		}
		form.Set("TemplateBody", adapted)
		body = []byte(form.Encode())
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	f.proxy.ServeHTTP(w, r)
}

func (f *formation) adapt(ctx context.Context, template string) (string, error) {
	// Instances call Vault from addresses of the loopback network.
	template = strings.ReplaceAll(template, "10.${Number}.", "127.${Number}.")
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(template), &document); err != nil {
		return "", err
	}
	root := document.Content[0]
	resources := value(root, "Resources")
	dropped := map[string]bool{}
	for n := 0; n < len(resources.Content); n += 2 {
		name, resource := resources.Content[n].Value, resources.Content[n+1]
		if notInMoto[value(resource, "Type").Value] {
			dropped[name] = true
		}
		if properties := value(resource, "Properties"); properties != nil {
			for _, key := range []string{"Ipv6CidrBlock", "AssignIpv6AddressOnCreation"} {
				remove(properties, key)
			}
			if value(properties, "Ipv6Native") != nil {
				remove(properties, "Ipv6Native")
				add(properties, "CidrBlock", `!Sub "127.${Number}.2.0/24"`)
			}
		}
		if depends := value(resource, "DependsOn"); depends != nil {
			remove(resource, "DependsOn")
		}
	}
	for name := range dropped {
		remove(resources, name)
	}
	if outputs := value(root, "Outputs"); outputs != nil && dropped["VaultCA"] {
		if err := f.writeSecrets(ctx, outputs); err != nil {
			return "", err
		}
		f.dropPolicy(resources)
	}
	text, err := yaml.Marshal(&document)
	return string(text), err
}

// dropPolicy removes Vault's policy, which names the secrets.
func (f *formation) dropPolicy(resources *yaml.Node) {
	remove(value(value(resources, "VaultRole"), "Properties"), "Policies")
}

// writeSecrets makes the secrets, as Vault's instance writes them, and names them in the outputs.
func (f *formation) writeSecrets(ctx context.Context, outputs *yaml.Node) error {
	facts, _ := json.Marshal(map[string]string{ // strings cannot fail
		"token": f.world.VaultToken, "public": f.world.VaultAddr, "private": f.world.VaultAddr, "ipv6": "",
	})
	client := secretsmanager.NewFromConfig(f.world.AWS)
	for output, text := range map[string]string{"VaultCASecretArn": f.world.VaultCAPEM, "VaultRootTokenSecretArn": string(facts)} {
		made, err := client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String("tryout-" + output), SecretString: &text})
		arn := ""
		if err != nil { // another place's stack has made it
			found, err := client.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: aws.String("tryout-" + output)})
			if err != nil {
				return err
			}
			arn = aws.ToString(found.ARN)
		} else {
			arn = aws.ToString(made.ARN)
		}
		remove(outputs, output)
		add(outputs, output, "{Condition: HasVault, Value: "+arn+"}")
	}
	return nil
}

// value returns a mapping's entry, or nil.
func value(mapping *yaml.Node, key string) *yaml.Node {
	for n := 0; mapping != nil && n+1 < len(mapping.Content); n += 2 {
		if mapping.Content[n].Value == key {
			return mapping.Content[n+1]
		}
	}
	return nil
}

func remove(mapping *yaml.Node, key string) {
	for n := 0; n+1 < len(mapping.Content); n += 2 {
		if mapping.Content[n].Value == key {
			mapping.Content = append(mapping.Content[:n], mapping.Content[n+2:]...)
			return
		}
	}
}

func add(mapping *yaml.Node, key, text string) {
	var parsed yaml.Node
	if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
		panic(err) // a literal of this file
	}
	mapping.Content = append(mapping.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, parsed.Content[0])
}
