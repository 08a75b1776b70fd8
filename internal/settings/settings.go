// Package settings reads and checks a function's settings from its environment. internal/wiring loads them once, when the
// function starts.
package settings

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// The faults of a setting. Load joins one for each wrong variable.
var (
	ErrMissing = errors.New("is required")
	ErrInvalid = errors.New("is not valid")
)

// Vault are the settings of the connection to Vault and the login.
type Vault struct {
	Addr           string // https://host:port
	Namespace      string // without slashes at its ends; empty: the root namespace
	CASecretARN    string // empty: the system's roots
	LoginMethod    string // LoginIAM, LoginAppRole or LoginToken
	LoginSecretARN string
	LoginMount     string
	LoginRole      string
	IAMServerID    string
	STSRegion      string // empty: the function's own
	STSEndpoint    string // empty: the region's own
}

// The ways to log in to Vault.
const (
	LoginIAM     = "iam"
	LoginAppRole = "approle"
	LoginToken   = "token"
)

// AnyAccount in ALLOWED_ACCOUNTS allows every account that has the member role and trusts this deployment with it.
const AnyAccount = "*"

// Settings are all settings of a function. The environment is not read again.
type Settings struct {
	TableName          string
	DeploymentID       string
	Vault              Vault
	AuthMount          string   // the mount of the instances' roles
	MemberRoleName     string   // empty: only the function's own account
	AllowedAccounts    []string // other than the function's own, whose instances may get a grant; AnyAccount allows all
	MemberExternalID   string   // external ID for the member role; by default the deployment ID
	Adopt              bool     // CONFLICT_MODE=adopt
	OnShuttingDown     bool     // DEPROVISION_ON=shutting-down
	RevokeCertificates Revocation
	MaxCertificateTTL  time.Duration // the longest max_ttl of a profile's PKI role; positive, whole seconds
	TemplatesDir       string        // empty: the built-in profiles
	Profiles           Profiles
	EventBus           string // name or ARN; empty: audit events are log lines only
	HookPrefix         string // of the names of the lifecycle hooks that are answered
	HookContinues      bool   // HOOK_ON_REFUSAL=continue
	// NameWait is how long after its event a launch hook waits for a name that a live instance holds; 0 to maxNameWait.
	NameWait time.Duration
	// ProvisionQueueURL is provision's queue, to which instances are sent that wait for a released name; empty: they wait for
	// reconcile.
	ProvisionQueueURL string
	// QuarantineSeverity is the lowest severity of a finding of GuardDuty that puts an instance into quarantine; 0: none does.
	QuarantineSeverity float64
	ReadyTag           string // key of the tag that shows whether an instance's identity is ready; empty: no tag
	Reconcile          Reconcile
	LogLevel           slog.Level
}

// Profiles are the settings of profiles from outside the function.
type Profiles struct {
	FromLedger bool // the ledger has them; otherwise TemplatesDir, or the built-in ones
	// Digests are the only ones that may be used, the preferred first; none: the active ones.
	Digests []string
}

// Reconcile are the settings of the reconcile function alone.
type Reconcile struct {
	DetectOnly bool     // RECONCILE_MODE=detect
	Accounts   []string // in all Regions
	Regions    []string // empty: the function's own
	// Pairs are accounts in one region each. Without Accounts and Pairs, the function's own account is compared.
	Pairs []facts.Place
	// DeleteLimit is the delete limit in percent of the recorded instances.
	DeleteLimit int
	// ConvergeQueueURL is the queue for repairs of live instances; empty: reconcile makes them itself.
	ConvergeQueueURL string
	// QueueURL is reconcile's own queue, through which a run that outlasts an invocation continues; empty: no queue.
	QueueURL string
}

var (
	tableName = facts.NewForm(`^[A-Za-z0-9_.-]{3,}$`, 255)
	mountPath = facts.NewForm(`^[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*$`, 1024)
	roleName  = facts.NewForm(`^[A-Za-z0-9_.-]+$`, 512)
	iamName   = facts.NewForm(`^[A-Za-z0-9+=,.@_/-]+$`, 128)
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
	externalID = facts.NewForm(`^[A-Za-z0-9_+=,.@:/-]{2,}$`, 1224)
	// The complete ARN: Secrets Manager ends it with a hyphen and six random characters, and IAM compares with the whole.
	// https://docs.aws.amazon.com/secretsmanager/latest/userguide/troubleshoot.html#ARN_secretnamehyphen
	secretARN = facts.NewForm(`^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}$`, 2048)
	queueURL  = facts.NewForm(`^https?://[^\s?#]+$`, 2048)
	eventBus  = facts.NewForm(`^(?:arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/)?[A-Za-z0-9/._-]+$`, 1600)
	// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_LifecycleHook.html
	hookPrefix = facts.NewForm(`^[A-Za-z0-9_/-]+$`, 200)
	// A subset of the keys that the metadata service can show. Without a colon, no key begins with aws:, which AWS reserves.
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html
	tagKey       = facts.NewForm(`^[A-Za-z0-9][A-Za-z0-9+=.,_@-]*$`, 128)
	bundleDigest = facts.NewForm(`^[0-9a-f]{64}$`, 64)

	header = facts.NewForm(`^[!-~]+$`, 1024)
)

// Load reads the settings with getenv, and lists that name a file of the functions' package from files. An empty variable counts as
// not set. The error joins all faults; each names its variable and wraps ErrMissing or ErrInvalid.
func Load(getenv func(string) string, files fs.FS) (Settings, error) {
	r := reader{getenv: getenv, files: files}
	s := read(&r)
	if len(r.faults) > 0 {
		return Settings{}, fmt.Errorf("reading the environment: %w", errors.Join(r.faults...))
	}
	return s, nil
}

// Revocation says which certificates of an ended instance are revoked.
type Revocation string

// The revocations.
const (
	RevokeNone   Revocation = "false"
	RevokeLeased Revocation = "true" // those with a lease
	RevokeAll    Revocation = "all"  // the other stored ones too
)

// Leased reports whether certificates with a lease are revoked.
func (r Revocation) Leased() bool { return r != RevokeNone }

// Stored reports whether all stored certificates are revoked.
func (r Revocation) Stored() bool { return r == RevokeAll }

// read reads all settings; r collects the faults.
func read(r *reader) Settings {
	s := Settings{
		TableName:    r.form("TABLE_NAME", "", tableName, required),
		DeploymentID: r.text("DEPLOYMENT_ID", "", required),
		Vault: Vault{
			Addr:           r.address("VAULT_ADDR", required),
			Namespace:      r.namespace("VAULT_NAMESPACE"),
			CASecretARN:    r.form("VAULT_CA_SECRET_ARN", "", secretARN, optional),
			LoginMethod:    r.oneOf("VAULT_LOGIN_METHOD", LoginIAM, LoginAppRole, LoginToken),
			LoginSecretARN: r.form("VAULT_LOGIN_SECRET_ARN", "", secretARN, optional),
			LoginMount:     r.form("VAULT_LOGIN_MOUNT", "aws", mountPath, optional),
			LoginRole:      r.form("VAULT_LOGIN_ROLE", "ec2-provisioner", roleName, optional),
			IAMServerID:    r.form("VAULT_IAM_SERVER_ID", "", header, optional),
			STSRegion:      r.text("VAULT_STS_REGION", "", optional),
			STSEndpoint:    r.address("VAULT_STS_ENDPOINT", optional),
		},
		AuthMount:          r.form("VAULT_AUTH_MOUNT", "aws", mountPath, optional),
		MemberRoleName:     r.form("MEMBER_ROLE_NAME", "", iamName, optional),
		AllowedAccounts:    r.allowedAccounts("ALLOWED_ACCOUNTS"),
		MemberExternalID:   r.form("MEMBER_ROLE_EXTERNAL_ID", "", externalID, optional),
		Adopt:              r.oneOf("CONFLICT_MODE", "refuse", "adopt") == "adopt",
		OnShuttingDown:     r.oneOf("DEPROVISION_ON", "terminated", "shutting-down") == "shutting-down",
		RevokeCertificates: Revocation(r.oneOf("REVOKE_CERTIFICATES", string(RevokeNone), string(RevokeLeased), string(RevokeAll))),
		MaxCertificateTTL:  r.duration("MAX_CERTIFICATE_TTL", "8760h"),
		TemplatesDir:       r.text("TEMPLATES_DIR", "", optional),
		Profiles:           r.profiles("PROFILES"),
		EventBus:           r.form("EVENT_BUS_NAME", "", eventBus, optional),
		HookPrefix:         r.form("HOOK_PREFIX", "vault-identity-", hookPrefix, optional),
		HookContinues:      r.oneOf("HOOK_ON_REFUSAL", "abandon", "continue") == "continue",
		NameWait:           r.wait("NAME_WAIT", "10m", maxNameWait),
		ProvisionQueueURL:  r.form("PROVISION_QUEUE_URL", "", queueURL, optional),
		QuarantineSeverity: r.severity("QUARANTINE_SEVERITY"),
		ReadyTag:           r.form("READY_TAG", "", tagKey, optional),
		Reconcile:          readReconcile(r),
		LogLevel:           r.level("LOG_LEVEL"),
	}
	for _, p := range s.Reconcile.Places("") {
		if p.Account != "" && !slices.Contains(s.AllowedAccounts, p.Account) {
			s.AllowedAccounts = append(s.AllowedAccounts, p.Account)
		}
	}
	s.MemberExternalID = cmp.Or(s.MemberExternalID, s.DeploymentID)
	if s.DeploymentID != "" {
		if err := grant.CheckDeployment(s.DeploymentID); err != nil {
			r.invalid("DEPLOYMENT_ID", err.Error())
		}
	}
	if s.Profiles.FromLedger && s.TemplatesDir != "" {
		r.invalid("TEMPLATES_DIR", "profiles come from the ledger (PROFILES), or from a folder: set one of the two")
	}
	if v := s.Vault.STSRegion; v != "" && !facts.IsRegion(v) {
		r.invalid("VAULT_STS_REGION", fmt.Sprintf("%q is not a region", v))
	}
	if s.Vault.LoginMethod != LoginIAM && s.Vault.LoginSecretARN == "" && r.getenv("VAULT_LOGIN_SECRET_ARN") == "" {
		r.faults = append(r.faults, fmt.Errorf("VAULT_LOGIN_SECRET_ARN %w when VAULT_LOGIN_METHOD is %s", ErrMissing, s.Vault.LoginMethod))
	}
	return s
}

// readReconcile reads the settings of reconcile in the order of the page.
func readReconcile(r *reader) Reconcile {
	s := Reconcile{DetectOnly: r.oneOf("RECONCILE_MODE", "correct", "detect") == "detect"}
	s.Accounts, s.Pairs = r.accounts("RECONCILE_ACCOUNTS")
	s.Regions = r.list("RECONCILE_REGIONS", facts.IsRegion)
	s.DeleteLimit = r.percent("DELETE_LIMIT_PERCENT", 20)
	s.ConvergeQueueURL = r.form("CONVERGE_QUEUE_URL", "", queueURL, optional)
	s.QueueURL = r.form("RECONCILE_QUEUE_URL", "", queueURL, optional)
	return s
}

// Places returns the accounts and regions to compare, each once. own is the function's own region; an empty account is the
// function's own.
func (r Reconcile) Places(own string) []facts.Place {
	accounts, regions := r.Accounts, r.Regions
	if len(accounts)+len(r.Pairs) == 0 {
		accounts = []string{""}
	}
	if len(regions) == 0 {
		regions = []string{own}
	}
	var out []facts.Place
	for _, a := range accounts {
		for _, region := range regions {
			out = append(out, facts.Place{Account: a, Region: region})
		}
	}
	for _, p := range r.Pairs {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}
