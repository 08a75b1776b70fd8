package settings_test

import (
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/settings"
)

const secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:vault-AbCdEf"

var baseline = map[string]string{
	"TABLE_NAME":    "ledger",
	"DEPLOYMENT_ID": "vault-ec2",
	"VAULT_ADDR":    "https://vault.example.com:8200",
}

func load(change map[string]string) (settings.Settings, error) {
	env := maps.Clone(baseline)
	maps.Copy(env, change)
	return settings.Load(func(name string) string { return env[name] }, fstest.MapFS{
		"accounts.txt": {Data: []byte("# the fleet\n123456789012\n210987654321 # staging\n\n333344445555:eu-west-1\r\n")},
		"commas.txt":   {Data: []byte(",\n")},
		"wrong.txt":    {Data: []byte("123456789012\n12345")},
		"any.txt":      {Data: []byte("*\n")},
		"empty.txt":    {Data: []byte("# none\n")},
	})
}

func TestLists_MayBeInAFileOfThePackage(t *testing.T) {
	s, err := load(map[string]string{"RECONCILE_ACCOUNTS": "@accounts.txt", "ALLOWED_ACCOUNTS": "@accounts.txt"})
	if err != nil {
		t.Fatal(err)
	}
	places := s.Reconcile.Places("us-east-1")
	want := []facts.Place{{Account: "123456789012", Region: "us-east-1"}, {Account: "210987654321", Region: "us-east-1"}, {Account: "333344445555", Region: "eu-west-1"}}
	if !slices.Equal(places, want) || !slices.Equal(s.AllowedAccounts, []string{"123456789012", "210987654321", "333344445555"}) {
		t.Errorf("got the places %v and the accounts %q, want %v", places, s.AllowedAccounts, want)
	}
}

func TestSettings_DefaultsFollowTheContract(t *testing.T) {
	got, err := load(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := settings.Settings{
		TableName: "ledger", DeploymentID: "vault-ec2", MemberExternalID: "vault-ec2", AuthMount: "aws", LogLevel: slog.LevelInfo,
		RevokeCertificates: settings.RevokeNone, HookPrefix: "vault-identity-", NameWait: 10 * time.Minute, MaxCertificateTTL: 8760 * time.Hour,
		Vault:     settings.Vault{Addr: "https://vault.example.com:8200", LoginMethod: "iam", LoginMount: "aws", LoginRole: "ec2-provisioner"},
		Reconcile: settings.Reconcile{DeleteLimit: 20},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSettings_FaultNamesVariableAndKind(t *testing.T) {
	for name, row := range map[string]struct {
		change map[string]string
		is     error
		says   string
	}{
		"no table":                               {map[string]string{"TABLE_NAME": ""}, settings.ErrMissing, "TABLE_NAME"},
		"a table of spaces only":                 {map[string]string{"TABLE_NAME": "  "}, settings.ErrMissing, "TABLE_NAME"},
		"no deployment":                          {map[string]string{"DEPLOYMENT_ID": ""}, settings.ErrMissing, "DEPLOYMENT_ID"},
		"a deployment with a newline":            {map[string]string{"DEPLOYMENT_ID": "a\nb"}, settings.ErrInvalid, "DEPLOYMENT_ID"},
		"no Vault":                               {map[string]string{"VAULT_ADDR": ""}, settings.ErrMissing, "VAULT_ADDR"},
		"a Vault address without a scheme":       {map[string]string{"VAULT_ADDR": "vault:8200"}, settings.ErrInvalid, "VAULT_ADDR"},
		"a Vault address with a path":            {map[string]string{"VAULT_ADDR": "https://vault/v1"}, settings.ErrInvalid, "VAULT_ADDR"},
		"a Vault address with a password":        {map[string]string{"VAULT_ADDR": "https://u:p@vault"}, settings.ErrInvalid, "VAULT_ADDR"},
		"an unencrypted Vault on the network":    {map[string]string{"VAULT_ADDR": "http://vault.example.com:8200"}, settings.ErrInvalid, "VAULT_ADDR"},
		"a namespace with a wildcard":            {map[string]string{"VAULT_NAMESPACE": "team/*"}, settings.ErrInvalid, "VAULT_NAMESPACE"},
		"a namespace that no server has":         {map[string]string{"VAULT_NAMESPACE": "team/sys"}, settings.ErrInvalid, "VAULT_NAMESPACE"},
		"a CA that is not a secret's ARN":        {map[string]string{"VAULT_CA_SECRET_ARN": "/etc/ca.pem"}, settings.ErrInvalid, "VAULT_CA_SECRET_ARN"},
		"a CA by a partial ARN":                  {map[string]string{"VAULT_CA_SECRET_ARN": "arn:aws:secretsmanager:us-east-1:123456789012:secret:vault-ca"}, settings.ErrInvalid, "VAULT_CA_SECRET_ARN"},
		"a login secret by a partial ARN":        {map[string]string{"VAULT_LOGIN_SECRET_ARN": "arn:aws:secretsmanager:us-east-1:123456789012:secret:login"}, settings.ErrInvalid, "VAULT_LOGIN_SECRET_ARN"},
		"an unknown login method":                {map[string]string{"VAULT_LOGIN_METHOD": "ldap"}, settings.ErrInvalid, "VAULT_LOGIN_METHOD"},
		"approle without its secret":             {map[string]string{"VAULT_LOGIN_METHOD": "approle"}, settings.ErrMissing, "VAULT_LOGIN_SECRET_ARN"},
		"an auth mount that leaves its path":     {map[string]string{"VAULT_AUTH_MOUNT": "../sys"}, settings.ErrInvalid, "VAULT_AUTH_MOUNT"},
		"a server ID with a line break":          {map[string]string{"VAULT_IAM_SERVER_ID": "a\r\nb"}, settings.ErrInvalid, "VAULT_IAM_SERVER_ID"},
		"an unknown STS region":                  {map[string]string{"VAULT_STS_REGION": "here"}, settings.ErrInvalid, "VAULT_STS_REGION"},
		"an unknown conflict mode":               {map[string]string{"CONFLICT_MODE": "overwrite"}, settings.ErrInvalid, "CONFLICT_MODE"},
		"an unknown state to deprovision on":     {map[string]string{"DEPROVISION_ON": "stopped"}, settings.ErrInvalid, "DEPROVISION_ON"},
		"yes instead of true":                    {map[string]string{"REVOKE_CERTIFICATES": "yes"}, settings.ErrInvalid, "REVOKE_CERTIFICATES"},
		"a certificate lifetime without unit":    {map[string]string{"MAX_CERTIFICATE_TTL": "8760"}, settings.ErrInvalid, "MAX_CERTIFICATE_TTL"},
		"a certificate lifetime of zero":         {map[string]string{"MAX_CERTIFICATE_TTL": "0s"}, settings.ErrInvalid, "MAX_CERTIFICATE_TTL"},
		"a negative certificate lifetime":        {map[string]string{"MAX_CERTIFICATE_TTL": "-1h"}, settings.ErrInvalid, "MAX_CERTIFICATE_TTL"},
		"a certificate lifetime of half seconds": {map[string]string{"MAX_CERTIFICATE_TTL": "1500ms"}, settings.ErrInvalid, "MAX_CERTIFICATE_TTL"},
		"an unknown reconcile mode":              {map[string]string{"RECONCILE_MODE": "fix"}, settings.ErrInvalid, "RECONCILE_MODE"},
		"an account with eleven digits":          {map[string]string{"RECONCILE_ACCOUNTS": "123456789012, 12345678901"}, settings.ErrInvalid, "RECONCILE_ACCOUNTS"},
		"a pattern of accounts":                  {map[string]string{"ALLOWED_ACCOUNTS": "1234*"}, settings.ErrInvalid, "ALLOWED_ACCOUNTS"},
		"any account to be compared":             {map[string]string{"RECONCILE_ACCOUNTS": "*"}, settings.ErrInvalid, "RECONCILE_ACCOUNTS"},
		"any account to be allowed by a file":    {map[string]string{"ALLOWED_ACCOUNTS": "@any.txt"}, settings.ErrInvalid, "ALLOWED_ACCOUNTS"},
		"any account beside another":             {map[string]string{"ALLOWED_ACCOUNTS": "*,123456789012"}, settings.ErrInvalid, "ALLOWED_ACCOUNTS"},
		"a file that the package does not have":  {map[string]string{"RECONCILE_ACCOUNTS": "@missing.txt"}, settings.ErrInvalid, "build it with the file"},
		"a file outside of the package":          {map[string]string{"RECONCILE_ACCOUNTS": "@../accounts.txt"}, settings.ErrInvalid, "RECONCILE_ACCOUNTS"},
		"a file with a wrong line":               {map[string]string{"RECONCILE_ACCOUNTS": "@wrong.txt"}, settings.ErrInvalid, "wrong.txt:2"},
		"a file of commas":                       {map[string]string{"RECONCILE_ACCOUNTS": "@commas.txt"}, settings.ErrInvalid, "commas.txt:1"},
		"a file that names none":                 {map[string]string{"RECONCILE_ACCOUNTS": "@empty.txt"}, settings.ErrInvalid, "names none"},
		"a pair without a region":                {map[string]string{"RECONCILE_ACCOUNTS": "123456789012:"}, settings.ErrInvalid, "RECONCILE_ACCOUNTS"},
		"a pair with a zone":                     {map[string]string{"RECONCILE_ACCOUNTS": "123456789012:us-east-1a"}, settings.ErrInvalid, "RECONCILE_ACCOUNTS"},
		"a region that is a zone":                {map[string]string{"RECONCILE_REGIONS": "us-east-1a"}, settings.ErrInvalid, "RECONCILE_REGIONS"},
		"a delete limit above 100":               {map[string]string{"DELETE_LIMIT_PERCENT": "101"}, settings.ErrInvalid, "DELETE_LIMIT_PERCENT"},
		"a wait that is too long":                {map[string]string{"NAME_WAIT": "61m"}, settings.ErrInvalid, "from 0s to 1h0m0s"},
		"a negative wait":                        {map[string]string{"NAME_WAIT": "-1s"}, settings.ErrInvalid, "NAME_WAIT"},
		"a queue that is not a URL":              {map[string]string{"CONVERGE_QUEUE_URL": "provision"}, settings.ErrInvalid, "CONVERGE_QUEUE_URL"},
		"an unknown log level":                   {map[string]string{"LOG_LEVEL": "loud"}, settings.ErrInvalid, "LOG_LEVEL"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(row.change)
			if !errors.Is(err, row.is) || !strings.Contains(err.Error(), row.says) {
				t.Errorf("want an error that names %s and is %q, got %v", row.says, row.is, err)
			}
		})
	}
}

func TestSettings_ReportEveryFaultAtOnce(t *testing.T) {
	_, err := load(map[string]string{"TABLE_NAME": "", "VAULT_ADDR": "x", "LOG_LEVEL": "loud"})
	for _, name := range []string{"TABLE_NAME", "VAULT_ADDR", "LOG_LEVEL"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want all three faults in one error, but %s is missing: %v", name, err)
		}
	}
}

func TestPlaces_AreTheProductAndThePairs(t *testing.T) {
	for env, want := range map[[2]string][]string{
		{"", ""}:                    {":us-east-1"},
		{"", "eu-west-1,eu-west-2"}: {":eu-west-1", ":eu-west-2"},
		{"111122223333", ""}:        {"111122223333:us-east-1"},
		{"111122223333,222233334444:eu-west-1", "eu-north-1"}:                          {"111122223333:eu-north-1", "222233334444:eu-west-1"},
		{"222233334444:eu-west-1,222233334444:eu-west-2", "eu-north-1"}:                {"222233334444:eu-west-1", "222233334444:eu-west-2"},
		{"111122223333,111122223333:eu-north-1, 111122223333:eu-west-1", "eu-north-1"}: {"111122223333:eu-north-1", "111122223333:eu-west-1"},
	} {
		s, err := load(map[string]string{"RECONCILE_ACCOUNTS": env[0], "RECONCILE_REGIONS": env[1]})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range s.Reconcile.Places("us-east-1") {
			got = append(got, p.Account+":"+p.Region)
		}
		if !slices.Equal(got, want) {
			t.Errorf("accounts %q, regions %q: want %q, got %q", env[0], env[1], want, got)
		}
	}
}

func TestSettings_AreAllRead(t *testing.T) {
	got, err := load(map[string]string{
		"VAULT_ADDR": "https://vault:8200/", "VAULT_NAMESPACE": "/team/a/", "VAULT_CA_SECRET_ARN": secret,
		"VAULT_LOGIN_METHOD": "approle", "VAULT_LOGIN_SECRET_ARN": secret, "VAULT_LOGIN_MOUNT": "approle", "VAULT_LOGIN_ROLE": "fn",
		"VAULT_IAM_SERVER_ID": "vault.example", "VAULT_STS_REGION": "eu-central-1", "VAULT_STS_ENDPOINT": "https://sts.amazonaws.com",
		"VAULT_AUTH_MOUNT": "aws-fleet", "MEMBER_ROLE_NAME": "member", "MEMBER_ROLE_EXTERNAL_ID": "fleet:7", "CONFLICT_MODE": "adopt", "DEPROVISION_ON": "shutting-down",
		"REVOKE_CERTIFICATES": "true", "MAX_CERTIFICATE_TTL": "720h30m", "HOOK_PREFIX": "blue/vault-", "HOOK_ON_REFUSAL": "continue", "NAME_WAIT": "0s",
		"PROVISION_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/provision", "READY_TAG": "vault-identity", "QUARANTINE_SEVERITY": "high", "TEMPLATES_DIR": "/opt/templates", "LOG_LEVEL": "debug",
		"RECONCILE_MODE": "detect", "RECONCILE_ACCOUNTS": "123456789012, 210987654321,123456789012,333344445555:eu-west-1", "RECONCILE_REGIONS": "us-east-1,eu-central-1",
		"DELETE_LIMIT_PERCENT": "0", "CONVERGE_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/provision",
		"RECONCILE_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/reconcile",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := settings.Settings{
		TableName: "ledger", DeploymentID: "vault-ec2", AuthMount: "aws-fleet", MemberRoleName: "member", AllowedAccounts: []string{"123456789012", "210987654321", "333344445555"}, MemberExternalID: "fleet:7", Adopt: true,
		OnShuttingDown: true, RevokeCertificates: settings.RevokeLeased, MaxCertificateTTL: 720*time.Hour + 30*time.Minute, TemplatesDir: "/opt/templates", LogLevel: slog.LevelDebug,
		HookPrefix: "blue/vault-", HookContinues: true, ProvisionQueueURL: "https://sqs.us-east-1.amazonaws.com/123456789012/provision", ReadyTag: "vault-identity", QuarantineSeverity: 7,
		Vault: settings.Vault{
			Addr: "https://vault:8200", Namespace: "team/a", CASecretARN: secret, LoginMethod: "approle", LoginSecretARN: secret,
			LoginMount: "approle", LoginRole: "fn", IAMServerID: "vault.example", STSRegion: "eu-central-1", STSEndpoint: "https://sts.amazonaws.com",
		},
		Reconcile: settings.Reconcile{
			DetectOnly: true, Accounts: []string{"123456789012", "210987654321"}, Regions: []string{"us-east-1", "eu-central-1"},
			Pairs:            []facts.Place{{Account: "333344445555", Region: "eu-west-1"}},
			ConvergeQueueURL: "https://sqs.us-east-1.amazonaws.com/123456789012/provision",
			QueueURL:         "https://sqs.us-east-1.amazonaws.com/123456789012/reconcile",
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
