package vaultserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/vault/api"
)

// Node is one node of a cluster. Its address and its storage stay the same when it is started again.
type Node struct {
	*node
	cluster *Cluster
	starts  int
}

// Name returns the node's name in Raft.
func (n *Node) Name() string { return n.name }

// Address returns the node's own address, which no balancer is before.
func (n *Node) Address() string { return n.address }

// Client returns a client of this node alone, with the root token.
func (n *Node) Client() (*api.Client, error) {
	client, err := n.client.Clone()
	if err == nil {
		client.SetToken(n.cluster.RootToken)
	}
	return client, err
}

func (n *Node) isActive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	leader, err := n.client.Sys().LeaderWithContext(ctx)
	return err == nil && leader.IsSelf
}

// Kill ends the node at once, as a crash does.
func (n *Node) Kill() error {
	if n.process == nil {
		return nil
	}
	return n.process.Kill()
}

// Freeze suspends the node for a time, as a virtual machine that is moved. A leader that wakes is the last one to know that
// there is another.
func (n *Node) Freeze(ctx context.Context, d time.Duration) error {
	if err := n.process.Suspend(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	return n.process.Continue()
}

// Stop ends the node as a shutdown does: a leader hands over first.
func (n *Node) Stop() error {
	if n.process == nil {
		return nil
	}
	return n.process.Stop()
}

// Start starts the node if it is down, unseals it if it is sealed, and waits until it is unsealed.
func (n *Node) Start(ctx context.Context) error {
	if n.isDown() {
		// A crash may have left an incomplete line in the audit log, so each start has a file of its own.
		n.starts++
		log := filepath.Join(n.dir, auditFile)
		if err := os.Rename(log, filepath.Join(n.dir, fmt.Sprintf("audit-%d.jsonl", n.starts))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("starting %s again: %w", n.name, err)
		}
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	return n.Unseal(ctx)
}

func (n *Node) isDown() bool {
	if n.process == nil {
		return true
	}
	select {
	case <-n.process.Done():
		return true
	default:
		return false
	}
}

// Seal seals the node. Vault seals only the active one by request.
func (n *Node) Seal(ctx context.Context) error {
	return n.asRoot(ctx, "sealing", (*api.Sys).SealWithContext)
}

// StepDown makes the active node hand over, and waits until it is not active. It may become active again
// after ten seconds, if no other node could take over.
// https://developer.hashicorp.com/vault/api-docs/system/step-down
func (n *Node) StepDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := n.asRoot(ctx, "stepping down", (*api.Sys).StepDownWithContext); err != nil {
		return err
	}
	return until(ctx, n.name+" has stepped down", func() (bool, error) { return !n.isActive(ctx), nil })
}

func (n *Node) asRoot(ctx context.Context, doing string, do func(*api.Sys, context.Context) error) error {
	client, err := n.Client()
	if err == nil {
		err = do(client.Sys(), ctx)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", doing, n.name, err)
	}
	return nil
}

// join makes the node a member of the leader's cluster.
// https://developer.hashicorp.com/vault/api-docs/system/storage/raft#join-a-raft-cluster
func (n *Node) join(ctx context.Context, leader *Node) error {
	if _, err := n.client.Sys().RaftJoinWithContext(ctx, &api.RaftJoinRequest{LeaderAPIAddr: leader.address, LeaderCACert: n.cert.caPEM}); err != nil {
		return fmt.Errorf("joining %s to %s: %w", n.name, leader.name, err)
	}
	return n.Unseal(ctx)
}

// Unseal sends the key to the node if it is sealed, and waits until it is unsealed. It sends the key once: a node that gets
// it twice while it joins has two loops that wait for leadership, and ignores a request to step down.
func (n *Node) Unseal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for sent := false; ; {
		status, err := n.client.Sys().SealStatusWithContext(ctx)
		if err == nil && !status.Sealed {
			return nil
		}
		if err == nil && !sent {
			sent = true
			err = n.unseal(ctx, n.cluster.unsealKey)
		}
		select {
		case <-n.process.Done():
			return fmt.Errorf("unsealing %s: it has ended; its log is %s", n.name, n.process.LogFile())
		case <-ctx.Done():
			return fmt.Errorf("unsealing %s: %w (last error: %w)", n.name, ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
