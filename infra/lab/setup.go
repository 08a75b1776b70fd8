package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// ServerID is the value of the X-Vault-AWS-IAM-Server-ID header in the lab.
const ServerID = "vault.lab"

// Parameters returns the template's parameters that the lab's Vault requires.
func Parameters() map[string]string { return map[string]string{"VaultIAMServerId": ServerID} }

// SetupVault makes the world's namespace, if it has one, and prepares Vault with vault-ec2 setup, the command that an operator runs. Its
// output goes to the run folder.
func SetupVault(ctx context.Context, w *World) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := w.makeNamespace(ctx); err != nil {
		return err
	}
	out, err := w.VaultSetup(ctx)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.WriteFile(w.workspace.Log("vault-setup"), out, 0o600)
}

// VaultSetup runs vault-ec2 setup with the flags for the lab's stack and moto, then more, and returns its output.
func (w *World) VaultSetup(ctx context.Context, more ...string) ([]byte, error) {
	args := []string{
		"setup",
		"--function-role", "provision=" + w.Stack.Outputs["ProvisionFunctionRoleArn"],
		"--function-role", "deprovision=" + w.Stack.Outputs["DeprovisionFunctionRoleArn"],
		"--function-role", "reconcile=" + w.Stack.Outputs["ReconcileFunctionRoleArn"],
		"--deployment", w.opts.StackName, "--server-id", ServerID, "--aws-endpoint", w.MotoURL, "--sts-region", w.Region, "--aws-keys", "--pki",
		"--templates-dir", w.Profiles,
	}
	setup, err := w.Command(ctx, append(args, more...)...)
	if err != nil {
		return nil, err
	}
	out, err := setup.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("running vault-ec2 setup: %w", err)
	}
	return out, nil
}

// Command returns a call of vault-ec2, as make build built it, that reaches the world's Vault with the root token, and moto.
func (w *World) Command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	ca := filepath.Join(w.RunDir, "vault-ca.pem")
	if text, err := os.ReadFile(ca); err != nil || string(text) != w.VaultCAPEM { // another call may read it now
		if err := os.WriteFile(ca, []byte(w.VaultCAPEM), 0o600); err != nil {
			return nil, fmt.Errorf("writing Vault's CA for vault-ec2: %w", err)
		}
	}
	credentials, err := w.AWS.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the lab's AWS keys for vault-ec2: %w", err)
	}
	command := exec.CommandContext(ctx, filepath.Join(w.opts.BuildDir, "vault-ec2"), args...)
	command.Env = append(os.Environ(), "VAULT_ADDR="+w.VaultAddr, "VAULT_CACERT="+ca, "VAULT_TOKEN="+w.VaultToken, "VAULT_NAMESPACE="+w.VaultNamespace,
		"AWS_ACCESS_KEY_ID="+credentials.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+credentials.SecretAccessKey, "AWS_REGION="+w.Region,
		"AWS_ENDPOINT_URL="+w.MotoURL, "AWS_PROFILE=")
	return command, nil
}
