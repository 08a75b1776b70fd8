// Package okta stands in for the client of Okta, which Vault asks in logins with its second factor.
package okta

import (
	"context"
	"errors"
	"net/http"
)

var errLeftOut = errors.New("the lab's build of Vault has no second factor of Okta")

type (
	Configuration struct{ Context context.Context }
	ConfigSetter  func(*Configuration)
)

func NewConfiguration(...ConfigSetter) (*Configuration, error) { return nil, errLeftOut }
func WithToken(string) ConfigSetter                            { return nil }
func WithOrgUrl(string) ConfigSetter                           { return nil }
func WithCache(bool) ConfigSetter                              { return nil }

type APIClient struct {
	UserAPI       userAPI
	UserFactorAPI factorAPI
}

func NewAPIClient(*Configuration) *APIClient { return nil }
func (*APIClient) GetConfig() *Configuration { return nil }

type (
	userAPI   struct{}
	factorAPI struct{}
)

func (userAPI) ListUsers(context.Context) (r users)                             { return }
func (factorAPI) ListFactors(context.Context, string) (r factors)               { return }
func (factorAPI) VerifyFactor(context.Context, string, string) (r verification) { return }
func (factorAPI) GetFactorTransactionStatus(_ context.Context, user, factor, transaction string) (r status) {
	return
}

type (
	users        struct{}
	factors      struct{}
	verification struct{}
	status       struct{}
)

func (r users) Filter(string) users                                  { return r }
func (users) Execute() ([]User, *http.Response, error)               { return nil, nil, errLeftOut }
func (factors) Execute() ([]Factor, *http.Response, error)           { return nil, nil, errLeftOut }
func (verification) Execute() (*Verification, *http.Response, error) { return nil, nil, errLeftOut }
func (status) Execute() (*Status, *http.Response, error)             { return nil, nil, errLeftOut }

type (
	User           struct{}
	UserFactorPush struct{}
	Factor         struct{ UserFactorPush *UserFactorPush }
	Verification   struct{ Links map[string]interface{} }
	Status         struct {
		UserFactorPushTransaction, UserFactorPushTransactionRejected       *struct{}
		UserFactorPushTransactionTimeout, UserFactorPushTransactionWaiting *struct{}
	}
)

func (User) GetId() string                    { return "" }
func (*UserFactorPush) GetId() string         { return "" }
func (*Verification) GetFactorResult() string { return "" }
