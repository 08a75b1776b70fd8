// Package k8s stands in for the lookup of nodes in Kubernetes.
package k8s

import (
	"errors"
	"log"
)

type Provider struct{}

func (*Provider) Addrs(map[string]string, *log.Logger) ([]string, error) {
	return nil, errors.New("the lab's build of Vault has no auto_join")
}

func (*Provider) Help() string { return "" }
