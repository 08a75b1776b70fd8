package demo

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// agent boots Vault Agent with the files of infra/instance on another worker before its role exists, and then reboots it.
func (d *demo) agent(ctx context.Context) (err error) {
	d.chapter("A worker boots with the user data of infra/instance: Vault Agent keeps its certificate on disk")
	launched, err := d.world.Fleet.Launch(ctx, fleet.Spec{Role: "alice-worker"})
	if err != nil {
		return err
	}
	i := launched[0]
	a, err := d.world.NewAgent(i, lab.AgentOptions{Role: "worker"})
	if err != nil {
		return err
	}
	defer func() {
		if closing := a.Close(); err == nil {
			err = closing
		}
	}()
	if err := a.Boot(ctx); err != nil {
		return err
	}
	booted := time.Now()
	if err := d.world.Fleet.Announce(ctx, i, "running"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	text, err := a.WaitFor(ctx, "etc/kubernetes/pki/kubelet.pem", "")
	if err != nil {
		return err
	}
	waited := time.Since(booted)
	d.say("It was up before its role existed, and retried until it could log in: %s.", ms(waited))
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return errors.New("kubelet.pem holds no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	d.expect(cert.Subject.CommonName == "system:node:"+i.PrivateDNS && slices.Equal(cert.DNSNames, []string{i.PrivateDNS}),
		"/etc/kubernetes/pki/kubelet.pem is for its own name", cert.Subject.CommonName)
	info, err := os.Stat(filepath.Join(a.Root, "etc/kubernetes/pki/kubelet.pem"))
	if err != nil {
		return err
	}
	d.expect(info.Mode().Perm() == 0o600, "and readable only by its owner", info.Mode().String())
	asked, err := a.WaitFor(ctx, "run/vault-agent/systemctl", "try-reload-or-restart kubelet.service")
	if err != nil {
		return err
	}
	d.expect(true, "kubelet is reloaded", strings.SplitN(asked, "\n", 2)[0])
	if err := a.Stop(); err != nil {
		return err
	}
	if err := a.Boot(ctx); err != nil {
		return err
	}
	if _, err := a.WaitForLog(ctx, "authentication successful", 2); err != nil {
		return err
	}
	d.expect(true, "after a reboot it logs in with its stored nonce", "")
	again, err := os.ReadFile(filepath.Join(a.Root, "etc/kubernetes/pki/kubelet.pem"))
	if err != nil {
		return err
	}
	d.expect(string(again) == text, "and keeps the certificate, which is still valid", "")
	return nil
}
