package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/lambdaapi"
)

// reconcile is the logical ID of the function that operators invoke.
const reconcile = "ReconcileFunction"

// api serves the stack's functions. Its file contains the address, for the commands of vault-ec2 with --lab.
type api struct {
	server *lambdaapi.Server
	file   string
	text   []byte
}

func serveFunctions(w *lab.World) (*api, error) {
	function, ok := w.Functions[reconcile]
	if !ok {
		return nil, fmt.Errorf("the stack has no %s to invoke", reconcile)
	}
	var invokers []lambdaapi.Invoker
	for _, f := range w.Functions {
		invokers = append(invokers, f)
	}
	server, err := lambdaapi.Start(invokers...)
	if err != nil {
		return nil, err
	}
	a := &api{server: server, file: filepath.Join(root, ".cache", "lab.env")}
	// For a shell that reads the file, the empty values override the developer's own settings.
	a.text = fmt.Appendf(nil, "AWS_ENDPOINT_URL_LAMBDA=%s\nAWS_REGION=%s\nAWS_ACCESS_KEY_ID=lab\nAWS_SECRET_ACCESS_KEY=lab\n"+
		"AWS_SESSION_TOKEN=\nAWS_PROFILE=\nAWS_IGNORE_CONFIGURED_ENDPOINT_URLS=\nRECONCILE_FUNCTION=%s\nTABLE_NAME=%s\nAWS_ENDPOINT_URL_DYNAMODB=%s\nPROFILES=%s\n",
		server.URL, w.Region, function.Name(), w.Stack.Tables["Table"], aws.ToString(w.Dynamo.Options().BaseEndpoint), w.Stack.Functions[reconcile].Env["PROFILES"])
	if err := os.WriteFile(a.file, a.text, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("writing the lab's address for vault-ec2: %w", err), server.Close())
	}
	return a, nil
}

// close ends the server and removes the file, unless a lab that started later has overwritten it.
func (a *api) close() error {
	err := a.server.Close()
	if text, reading := os.ReadFile(a.file); reading == nil && bytes.Equal(text, a.text) {
		err = errors.Join(err, os.Remove(a.file))
	}
	return err
}
