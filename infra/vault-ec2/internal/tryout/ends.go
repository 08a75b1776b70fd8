package tryout

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
)

const (
	silence     = 3 * time.Minute // a start and an event take less than one
	endPatience = 15 * time.Minute
	cutExpected = "Ended: auth role, policy and PKI role are gone, the token is dead, and its document does not log in"
	silentKind  = "silent member"
)

// silentMember takes the member's right to send events away: only a comparison finds its instances then.
func (t *tryout) silentMember(ctx context.Context) bool {
	const alone, found = "An instance of a member without the right to send events gets no grant by an event", "The next vault-ec2 reconcile grants it"
	m := t.at(member)
	if m == nil {
		t.j.skip(alone, "no --member-profile")
		t.j.skip(found, "no --member-profile")
		return true
	}
	since := time.Now()
	// No comparison may come in between.
	without := map[string]string{"MemberAccountIds": "", "ReconcileSchedule": "rate(12 hours)", "ReconcileOverdueSeconds": "86400"}
	if !t.j.check("Update: MemberAccountIds is emptied", since, t.samDeploy(ctx, without)) {
		return false
	}
	since = time.Now()
	hosts, err := t.launch(ctx, kind{name: silentKind, place: member, count: 1})
	if err == nil {
		t.j.doing("waiting %s for an event that must not come", min(silence, t.o.Patience))
		err = t.await(ctx, silence, func() error { return t.readSeen(ctx, hosts[0]) })
		switch {
		case err == nil:
			err = fmt.Errorf("instance %s was granted: is the account admitted otherwise?", hosts[0].id)
		case errors.Is(err, errNothingReported):
			err = nil
		}
	}
	if !t.j.check(alone, since, err) {
		return false
	}
	since = time.Now()
	err = t.ownCommand(ctx, "reconcile", "--stack", t.o.Name, "--mode", "correct")
	if err == nil {
		err = t.awaitGrants(ctx, hosts)
	}
	t.j.check(found, since, err)
	since = time.Now()
	t.j.check("Update: MemberAccountIds is set again", since, t.samDeploy(ctx, map[string]string{"ReconcileSchedule": "rate(1 hour)", "ReconcileOverdueSeconds": "7200"}))
	return true
}

// ends terminates every instance, and checks what is left of it in Vault.
func (t *tryout) ends(ctx context.Context) bool {
	since := time.Now()
	var errs []error
	for _, h := range t.reported() {
		if err := t.readSeen(ctx, h); err != nil { // the last token
			errs = append(errs, err)
		}
		if h.seen.Refused > 0 {
			errs = append(errs, h.failure())
		}
	}
	t.j.check("Before they end, all instances have used their identities without a refusal", since, errors.Join(errs...))
	for _, p := range t.places {
		var ids []string
		for _, h := range t.hosts {
			if h.place == p && h.group == "" {
				ids = append(ids, h.id)
			}
		}
		if len(ids) == 0 {
			continue
		}
		t.j.doing("terminating %d instances in %s", len(ids), p)
		if err := t.terminateIDs(ctx, p, ids); err != nil {
			t.j.check("The instances in "+p.String()+" are terminated", since, err)
			return false
		}
	}
	since = time.Now()
	t.shrinkGroups(ctx)
	for _, k := range kindsOf(t.hosts) {
		var errs []error
		n := 0
		for _, h := range t.hosts {
			if h.kind == k {
				n++
				errs = append(errs, t.await(ctx, endPatience, func() error { return t.isCut(ctx, h) }))
			}
		}
		t.j.check(fmt.Sprintf("%d × %s. %s", n, k, cutExpected), since, errors.Join(errs...))
	}
	since = time.Now()
	t.j.check("vault-ec2 reconcile finds no drift", since, t.ownCommand(ctx, "reconcile", "--stack", t.o.Name))
	return true
}

// kindsOf returns the kinds of instances, each once.
func kindsOf(hosts []*host) []string {
	var kinds []string
	for _, h := range hosts {
		if !slices.Contains(kinds, h.kind) {
			kinds = append(kinds, h.kind)
		}
	}
	return kinds
}

// isCut fails while an ended instance has anything left.
func (t *tryout) isCut(ctx context.Context, h *host) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, path := range []string{"auth/aws/role/" + h.id, "sys/policies/acl/ec2-" + h.id + "-use", basePath + "/pki/roles/" + h.id + "-node"} {
		answer, err := t.vault.Logical().ReadWithContext(ctx, path)
		if err != nil {
			return fmt.Errorf("reading %s in Vault: %w", path, err)
		}
		if answer != nil {
			return fmt.Errorf("instance %s has ended, and %s exists still", h.id, path)
		}
	}
	if h.seen.Granted == 0 {
		return fmt.Errorf("instance %s never logged in, so neither token nor document could be tried", h.id)
	}
	if err := t.isDead(ctx, h); err != nil {
		return err
	}
	return t.cannotLogIn(ctx, h)
}

// isDead fails unless the last token of an instance is gone, or the entity behind it: Vault refuses such a token, and lists it until its
// end.
func (t *tryout) isDead(ctx context.Context, h *host) error {
	token, err := t.vault.Auth().Token().LookupAccessorWithContext(ctx, h.seen.Accessor)
	switch {
	case isRefusal(err):
		return nil
	case err != nil:
		return fmt.Errorf("looking the token of %s up: %w", h.id, err)
	}
	entity, _ := token.Data["entity_id"].(string)
	if entity == "" {
		return fmt.Errorf("instance %s has ended, and its token has no entity that could be cut", h.id)
	}
	answer, err := t.vault.Logical().ReadWithContext(ctx, "identity/entity/id/"+entity)
	if err != nil {
		return fmt.Errorf("reading the entity of %s: %w", h.id, err)
	}
	if answer != nil {
		return fmt.Errorf("instance %s has ended, and the entity of its token exists still", h.id)
	}
	return nil
}

// cannotLogIn fails if an ended instance's document and nonce still log in.
func (t *tryout) cannotLogIn(ctx context.Context, h *host) error {
	client, err := t.vault.Clone()
	if err != nil {
		return err
	}
	client.ClearToken()
	_, err = client.Logical().WriteWithContext(ctx, "auth/aws/login", map[string]any{
		"role": h.id, "identity": base64.StdEncoding.EncodeToString([]byte(h.seen.Document)), "signature": strings.TrimSpace(h.seen.Signature), "nonce": h.seen.Nonce,
	})
	switch {
	case err == nil:
		return fmt.Errorf("instance %s has ended, and its document still logs in", h.id)
	case !isRefusal(err):
		return fmt.Errorf("logging in with the document of %s: %w", h.id, err)
	}
	return nil
}

// isRefusal reports whether Vault refused a request, as opposed to not answering it.
func isRefusal(err error) bool {
	answer := (*vaultapi.ResponseError)(nil)
	return errors.As(err, &answer) && answer.StatusCode >= http.StatusBadRequest && answer.StatusCode < http.StatusInternalServerError
}

// teardown takes the deployment's objects out of Vault, with one instance that still runs.
func (t *tryout) teardown(ctx context.Context) bool {
	since := time.Now()
	hosts, err := t.launch(ctx, kind{name: "at the teardown", place: home, count: 1})
	if err == nil {
		err = t.awaitGrants(ctx, hosts)
	}
	if !t.j.check("An instance runs at the teardown", since, err) {
		return false
	}
	since = time.Now()
	err = t.ownCommand(ctx, "teardown", "--stack", t.o.Name, "--yes", t.o.Name)
	if err == nil {
		err = t.await(ctx, endPatience, func() error { return t.isCut(ctx, hosts[0]) })
	}
	return t.j.check("vault-ec2 teardown leaves nothing, also of an instance that runs", since, err)
}
