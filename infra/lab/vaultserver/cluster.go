package vaultserver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/wire"
)

const (
	nodes = 3
	// checkEvery is the balancer's interval between two health checks of a node.
	checkEvery = 250 * time.Millisecond
	// pollEvery is the interval between two looks at a state that is waited for.
	pollEvery = 20 * time.Millisecond
	// auditFile is relative, since all nodes have the same audit device and each has its own working folder.
	auditFile = "audit.jsonl"
)

// ClusterOptions configure a cluster.
type ClusterOptions struct {
	// ActiveOnly makes the balancer use only the active node. Otherwise it uses standbys too, which forward requests.
	ActiveOnly bool
}

// Cluster is three nodes on Raft with TLS between them and clients, behind a balancer. Its Address is the balancer's, its
// AuditLog the pattern of all nodes' files.
type Cluster struct {
	Server
	Nodes    []*Node
	Balancer *wire.Balancer

	unsealKey string
}

// StartCluster finds or builds the program, starts a cluster and waits until each node is usable.
// https://developer.hashicorp.com/vault/docs/configuration/storage/raft
func StartCluster(ctx context.Context, w *parts.Workspace, o ClusterOptions) (*Cluster, error) {
	binary, err := Find(ctx, w)
	if err != nil {
		return nil, err
	}
	cert, err := newCertificate(w.Run)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Server: Server{Binary: binary, CAPEM: cert.caPEM, AuditLog: filepath.Join(w.Run, "vault-*", "*.jsonl")}}
	for n := range nodes {
		name := fmt.Sprintf("vault-%d", n+1)
		made, err := newNode(w, binary, cert, name, filepath.Join(w.Run, name))
		if err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, &Node{node: made, cluster: c})
	}
	if err := c.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a cluster of Vault: %w", err), c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, o ClusterOptions) error {
	for _, n := range c.Nodes {
		if err := n.configure(storage{raft: raft(n)}); err != nil {
			return err
		}
	}
	group, starting := errgroup.WithContext(ctx)
	for _, n := range c.Nodes {
		group.Go(func() error { return n.start(starting) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	first := c.Nodes[0]
	var err error
	if c.RootToken, c.unsealKey, err = first.initialise(ctx); err != nil {
		return err
	}
	if err := prepare(ctx, first.client, c.Binary, c.RootToken, auditFile); err != nil {
		return err
	}
	if err := c.joinAll(ctx); err != nil {
		return err
	}
	return c.balance(ctx, o)
}

// joinAll joins the other nodes to the first one, and waits until all of them vote: a node that does not vote yet cannot
// become the leader.
func (c *Cluster) joinAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	client, err := c.Nodes[0].Client()
	if err != nil {
		return err
	}
	// https://developer.hashicorp.com/vault/api-docs/system/storage/raftautopilot#server_stabilization_time
	if _, err := client.Logical().WriteWithContext(ctx, "sys/storage/raft/autopilot/configuration", map[string]any{"server_stabilization_time": "1s"}); err != nil {
		return err
	}
	group, joining := errgroup.WithContext(ctx)
	for _, n := range c.Nodes[1:] {
		group.Go(func() error { return n.join(joining, c.Nodes[0]) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return until(ctx, "all nodes vote", func() (bool, error) {
		voters, err := votersOf(ctx, client)
		return voters == nodes, err
	})
}

// votersOf returns the number of nodes that vote.
func votersOf(ctx context.Context, client *api.Client) (int, error) {
	answer, err := client.Logical().ReadWithContext(ctx, "sys/storage/raft/configuration")
	if err != nil {
		return 0, fmt.Errorf("reading which nodes vote: %w", err)
	}
	config, _ := answer.Data["config"].(map[string]any)
	servers, _ := config["servers"].([]any)
	voters := 0
	for _, s := range servers {
		if fields, _ := s.(map[string]any); fields["voter"] == true {
			voters++
		}
	}
	return voters, nil
}

// until calls check until it returns true, or an error, or ctx is done. what completes the error "waiting until".
func until(ctx context.Context, what string, check func() (bool, error)) error {
	for {
		if done, err := check(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}

// raft returns a node's storage stanza. The smallest multiplier has the shortest election, and is HashiCorp's advice for
// production.
// https://developer.hashicorp.com/vault/docs/configuration/storage/raft#performance_multiplier
func raft(n *Node) map[string]any {
	return map[string]any{
		"path": n.dir, "node_id": n.name, "performance_multiplier": "1",
		"autopilot_update_interval": "500ms", "autopilot_reconcile_interval": "1s", // of letting new nodes vote
	}
}

// balance starts the balancer and waits until it uses each node, or with ActiveOnly the active one.
func (c *Cluster) balance(ctx context.Context, o ClusterOptions) error {
	var backends []wire.Backend
	for _, n := range c.Nodes {
		backends = append(backends, wire.Backend{Address: strings.TrimPrefix(n.address, "https://"), Usable: func(ctx context.Context) bool {
			health, err := n.client.Sys().HealthWithContext(ctx)
			return err == nil && health.Initialized && !health.Sealed && (!o.ActiveOnly || !health.Standby)
		}})
	}
	var err error
	if c.Balancer, err = wire.Balance(backends, checkEvery); err != nil {
		return err
	}
	c.Address = "https://" + c.Balancer.Address
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if o.ActiveOnly {
		return c.Balancer.WaitUsable(ctx, 1)
	}
	return c.Balancer.WaitUsable(ctx, nodes)
}

// Stop ends the balancer and all nodes.
func (c *Cluster) Stop() error {
	var errs []error
	if c.Balancer != nil {
		errs = append(errs, c.Balancer.Close())
	}
	group := errgroup.Group{}
	for _, n := range c.Nodes {
		group.Go(n.Stop)
	}
	return errors.Join(append(errs, group.Wait())...)
}

// Leader waits for the active node and returns it.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) { return c.LeaderAfter(ctx, nil) }

// LeaderAfter waits until a node other than the former leader is active, and returns it.
func (c *Cluster) LeaderAfter(ctx context.Context, former *Node) (*Node, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var leader *Node
	err := until(ctx, "Vault's cluster has a leader", func() (bool, error) {
		for _, n := range c.Nodes {
			if n != former && n.isActive(ctx) {
				leader = n
				return true, nil
			}
		}
		return false, nil
	})
	return leader, err
}

// Standbys returns the nodes other than the active one, which it waits for.
func (c *Cluster) Standbys(ctx context.Context) ([]*Node, error) {
	leader, err := c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	var others []*Node
	for _, n := range c.Nodes {
		if n != leader {
			others = append(others, n)
		}
	}
	return others, nil
}

// Restore starts and unseals the nodes that are down or sealed, and waits until all follow one leader and the balancer uses
// them.
func (c *Cluster) Restore(ctx context.Context) error {
	group, restoring := errgroup.WithContext(ctx)
	for _, n := range c.Nodes {
		group.Go(func() error { return n.Start(restoring) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := until(ctx, "all nodes of Vault's cluster follow one leader", func() (bool, error) { return c.isWhole(ctx), nil }); err != nil {
		return err
	}
	return c.Balancer.WaitUsable(ctx, nodes)
}

// isWhole reports whether all nodes know the same leader, which sees them as healthy: it can hand over to each.
// https://developer.hashicorp.com/vault/api-docs/system/storage/raftautopilot#get-cluster-state
func (c *Cluster) isWhole(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	leaders := map[string]bool{}
	for _, n := range c.Nodes {
		answer, err := n.client.Sys().LeaderWithContext(ctx)
		if err != nil || answer.LeaderAddress == "" {
			return false
		}
		leaders[answer.LeaderAddress] = true
	}
	if len(leaders) != 1 {
		return false
	}
	client, err := c.Nodes[0].Client()
	if err != nil {
		return false
	}
	state, err := client.Logical().ReadWithContext(ctx, "sys/storage/raft/autopilot/state")
	return err == nil && state != nil && state.Data["healthy"] == true
}
