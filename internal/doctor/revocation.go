package doctor

import (
	"context"
	"fmt"
	"strings"
)

// revocation checks that the revocation of stored certificates of a mount is complete, and that its price does not grow without bound:
// Vault makes the whole CRL at each revocation unless it makes it by time, and keeps ended certificates until it is told to remove them.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#set-revocation-configuration
// https://developer.hashicorp.com/vault/api-docs/secret/pki#configure-automatic-tidy
func (d Doctor) revocation(ctx context.Context, mount string) finding {
	if names := d.Profiles.Unstored(mount); len(names) > 0 {
		return bad("remove no_store from the roles' templates",
			"%s does not store the certificates of %s (no_store): nothing can revoke them", mount, strings.Join(names, ", "))
	}
	crl, err := d.Objects.Read(ctx, mount+"/config/crl")
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	tidy, err := d.Objects.Read(ctx, mount+"/config/auto-tidy")
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	var faults, remedies []string
	fault := func(remedy, format string, args ...any) {
		faults, remedies = append(faults, fmt.Sprintf(format, args...)), append(remedies, remedy)
	}
	if crl["disable"] == true {
		fault("vault write "+mount+"/config/crl disable=false", "%s makes no CRL: a revoked certificate still passes where only the CRL is checked", mount)
	}
	if crl["auto_rebuild"] != true {
		fault("vault write "+mount+"/config/crl auto_rebuild=true enable_delta=true", "%s makes its whole CRL at each revocation", mount)
	}
	if tidy["enabled"] != true || tidy["tidy_cert_store"] != true || tidy["tidy_revoked_certs"] != true {
		fault("vault write "+mount+"/config/auto-tidy enabled=true tidy_cert_store=true tidy_revoked_certs=true", "%s keeps ended certificates: its list, which each run reads, only grows", mount)
	}
	if len(faults) > 0 {
		return bad(strings.Join(remedies, "; "), "%s", strings.Join(faults, "; "))
	}
	return good("%s makes its CRL by time and removes ended certificates", mount)
}
