package fleet

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Metadata is an instance's metadata service, version 2 only, as with HttpTokens=required: without a session token it
// answers 401.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
type Metadata struct {
	URL string // for AWS_EC2_METADATA_SERVICE_ENDPOINT
	// CredentialsURL returns the role's credentials to a request with CredentialsToken, for
	// AWS_CONTAINER_CREDENTIALS_FULL_URI: version 1 of the AWS SDK, which Vault Agent uses, reads EC2 role credentials
	// only at EC2's fixed address.
	CredentialsURL, CredentialsToken string

	fleet    *Fleet
	options  MetadataOptions
	instance Instance
	server   *http.Server
	mu       sync.Mutex
	tokens   map[string]time.Time // expiry by token
	refused  int
}

// MetadataOptions make an instance's metadata service differ from that of an instance in a VPC with EC2's own DHCP options
// and with IPv4 addresses; the zero value is that one.
type MetadataOptions struct {
	// Listen is the service's address; empty for a free loopback port.
	Listen string
	// IPv6Only has the service answer on IPv6 only and without the items of IPv4, as in an IPv6-only subnet.
	IPv6Only bool
	// Domain replaces EC2's domain in local-hostname, as the VPC's DHCP options do. EC2 still shows the instance under its own
	// private DNS name.
	Domain string
	// Missing are paths below meta-data that answer 404.
	Missing []string
}

// Metadata starts the metadata service of an instance. The caller must close it.
func (f *Fleet) Metadata(i Instance, o MetadataOptions) (*Metadata, error) {
	address := "127.0.0.1:0"
	if o.IPv6Only {
		address = "[::1]:0"
		i.PrivateIP = ""
	}
	ln, err := net.Listen("tcp", cmp.Or(o.Listen, address))
	if err != nil {
		return nil, fmt.Errorf("starting the metadata service of %s: %w", i.ID, err)
	}
	m := &Metadata{URL: "http://" + ln.Addr().String(), fleet: f, options: o, instance: i, tokens: map[string]time.Time{}}
	m.CredentialsURL, m.CredentialsToken = m.URL+containerPath, rand.Text()
	m.server = &http.Server{Handler: m, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = m.server.Serve(ln) }()
	return m, nil
}

const containerPath = "/credentials"

// Close stops the service.
func (m *Metadata) Close() error { return m.server.Close() }

// Refused returns the number of requests without a valid session token.
func (m *Metadata) Refused() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refused
}

// ServeHTTP answers one request.
func (m *Metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const prefix = "/latest/"
	if r.URL.Path == prefix+"api/token" {
		m.session(w, r)
		return
	}
	if r.URL.Path == containerPath && r.Header.Get("Authorization") == m.CredentialsToken {
		m.serve(w, r, "meta-data/iam/security-credentials/"+m.instance.Role)
		return
	}
	m.mu.Lock()
	until := m.tokens[r.Header.Get("X-aws-ec2-metadata-token")]
	known := time.Now().Before(until)
	if !known {
		m.refused++
	}
	m.mu.Unlock()
	if !known {
		http.Error(w, "401 - Unauthorized", http.StatusUnauthorized)
		return
	}
	m.serve(w, r, strings.TrimPrefix(r.URL.Path, prefix))
}

func (m *Metadata) serve(w http.ResponseWriter, r *http.Request, path string) {
	text, err := m.answer(r.Context(), path)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case text == "":
		http.NotFound(w, r)
	default:
		_, _ = w.Write([]byte(text))
	}
}

func (m *Metadata) session(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.Atoi(r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"))
	if r.Method != http.MethodPut || err != nil || seconds < 1 || seconds > 21600 {
		http.Error(w, "400 - Bad Request", http.StatusBadRequest)
		return
	}
	token := rand.Text()
	m.mu.Lock()
	m.tokens[token] = time.Now().Add(time.Duration(seconds) * time.Second)
	m.mu.Unlock()
	w.Header().Set("X-aws-ec2-metadata-token-ttl-seconds", strconv.Itoa(seconds))
	_, _ = w.Write([]byte(token))
}

func (m *Metadata) answer(ctx context.Context, path string) (string, error) {
	i := m.instance
	const credentials = "meta-data/iam/security-credentials/"
	if item, ok := strings.CutPrefix(path, "meta-data/"); ok && slices.Contains(m.options.Missing, item) {
		return "", nil
	}
	switch path {
	case "meta-data/instance-id":
		return i.ID, nil
	case "meta-data/local-ipv4":
		return i.PrivateIP, nil
	case "meta-data/local-hostname":
		host, _, _ := strings.Cut(i.PrivateDNS, ".")
		if m.options.Domain != "" {
			return host + "." + m.options.Domain, nil
		}
		return i.PrivateDNS, nil
	case "meta-data/ipv6":
		if len(i.IPv6s) == 0 {
			return "", nil
		}
		return i.IPv6s[0], nil
	case "meta-data/placement/region":
		return i.Region, nil
	case "dynamic/instance-identity/document":
		return string(m.fleet.Document(i)), nil
	case "dynamic/instance-identity/pkcs7":
		return m.fleet.PKCS7(i)
	case "dynamic/instance-identity/signature":
		return m.fleet.Signature(i)
	case credentials:
		return i.Role, nil
	case credentials + i.Role:
		return m.credentials(ctx)
	}
	if key, isTag := strings.CutPrefix(path, "meta-data/tags/instance/"); isTag {
		return m.tag(ctx, key)
	}
	return "", nil
}

// tag returns one of the instance's tags, as with InstanceMetadataTags=enabled; empty if the tag does not exist.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html
func (m *Metadata) tag(ctx context.Context, key string) (string, error) {
	config, err := m.fleet.Config(ctx, m.instance.AccountID, m.instance.Region)
	if err != nil {
		return "", err
	}
	out, err := ec2.NewFromConfig(config).DescribeTags(ctx, &ec2.DescribeTagsInput{Filters: []ec2types.Filter{
		{Name: aws.String("resource-id"), Values: []string{m.instance.ID}}, {Name: aws.String("key"), Values: []string{key}},
	}})
	if err != nil || len(out.Tags) == 0 {
		return "", err
	}
	return aws.ToString(out.Tags[0].Value), nil
}

// credentials returns the credentials of the instance's role. Their session name is the instance's ID, as with EC2's own:
// Vault infers the instance from it.
func (m *Metadata) credentials(ctx context.Context) (string, error) {
	if m.instance.RoleARN == "" {
		return "", errors.New("the instance has no role")
	}
	config, err := m.fleet.Config(ctx, m.instance.AccountID, m.instance.Region)
	if err != nil {
		return "", err
	}
	out, err := sts.NewFromConfig(config).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &m.instance.RoleARN, RoleSessionName: &m.instance.ID})
	if err != nil {
		return "", err
	}
	c := out.Credentials
	text, err := json.Marshal(map[string]string{
		"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": time.Now().UTC().Format(time.RFC3339),
		"AccessKeyId": aws.ToString(c.AccessKeyId), "SecretAccessKey": aws.ToString(c.SecretAccessKey), "Token": aws.ToString(c.SessionToken),
		"Expiration": aws.ToTime(c.Expiration).UTC().Format(time.RFC3339),
	})
	return string(text), err
}

// Signature returns the signature of an instance's identity document in base64, as the metadata service returns it. Vault
// Agent logs in with the document and this signature.
func (f *Fleet) Signature(i Instance) (string, error) {
	sum := sha256.Sum256(f.Document(i))
	signed, err := rsa.SignPKCS1v15(rand.Reader, f.signer.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("signing the identity document of %s: %w", i.ID, err)
	}
	return base64.StdEncoding.EncodeToString(signed), nil
}
