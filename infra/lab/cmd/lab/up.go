package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// runUp keeps a world running until Ctrl-C and serves a few commands over HTTP, so that instances can be launched, logged in
// and terminated with curl.
func runUp(ctx context.Context) error {
	o := options()
	if profiles := os.Getenv("LAB_PROFILES"); profiles != "" {
		o.Parameters["Profiles"] = profiles
	}
	return in(ctx, o, func(w *lab.World) error { return up(ctx, w) })
}

func up(ctx context.Context, w *lab.World) (err error) {
	api, err := serveFunctions(w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.close()) }()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for commands: %w", err)
	}
	server := &http.Server{Handler: (&commandServer{world: w}).routes(), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	printUsage(w, "http://"+listener.Addr().String(), api.server.URL)
	select {
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr, "lab: stopping")
		stopping, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		return server.Shutdown(stopping)
	case err := <-failed:
		return fmt.Errorf("serving commands: %w", err)
	}
}

// printUsage prints the lab's addresses, credentials and commands. url is the address of the commands, functions that of the functions.
func printUsage(w *lab.World, url, functions string) {
	fmt.Printf(`
The lab is up. For the commands vault, aws and vault-ec2 (--stack lab; setup with --sts-region= too) in another terminal:

  export VAULT_ADDR=%s
  export VAULT_CACERT=%s
  export VAULT_TOKEN=%s
  export AWS_ENDPOINT_URL=%s AWS_ENDPOINT_URL_LAMBDA=%[9]s AWS_ENDPOINT_URL_DYNAMODB=%[10]s
  export AWS_REGION=%[5]s AWS_DEFAULT_REGION=%[5]s AWS_ACCESS_KEY_ID=lab AWS_SECRET_ACCESS_KEY=lab

Launch and terminate instances with:

  curl -X POST '%[6]s/launch?role=alice-worker'      # or alice-etcd, alice-master; prints the instance
  curl '%[6]s/instances/<instance ID>'               # its objects in Vault and its record
  curl -X POST '%[6]s/login?id=<instance ID>'        # its Vault token, from its signed identity document
  curl -X POST '%[6]s/terminate?id=<instance ID>'

Compare, repair and check the fleet from the repository's root with (the schedule, %[8]s, does not run here):

  make reconcile                                     # prints the drift; MODE=correct repairs it
  make reconcile MODE=correct INSTANCE=<instance ID>
  make doctor
  build/vault-ec2 explain --lab <instance ID>
  build/vault-ec2 who --lab <name, address or object>
  make teardown                                      # removes all objects of the deployment lab from Vault
%[11]s
Logs are in %[7]s. Ctrl-C ends the lab.
`, w.VaultAddr, filepath.Join(w.RunDir, "vault-ca.pem"), w.VaultToken, w.MotoURL, w.Region, url, w.RunDir, schedule(w),
		functions, aws.ToString(w.Dynamo.Options().BaseEndpoint), profileCommands(w))
}

// profileCommands returns the commands for profiles of one's own; none where the functions use built-in ones.
func profileCommands(w *lab.World) string {
	if w.Stack.Functions[reconcile].Env["PROFILES"] == "built-in" {
		return ""
	}
	return fmt.Sprintf(`
No profiles are active yet, so nothing is granted. Vault is prepared for those in %s. Activate them, or a changed copy:

  vault-ec2 apply --stack lab %[1]s
  vault-ec2 setup --stack lab --templates-dir <folder> --sts-region=   # before it, for a copy with a new path in Vault
`, w.Profiles)
}

func schedule(w *lab.World) string {
	for _, s := range w.Stack.Schedules {
		if s.FunctionLogicalID == reconcile {
			return s.Expression
		}
	}
	return "off"
}

// commandServer serves lab up's commands.
type commandServer struct {
	world  *lab.World
	known  map[string]fleet.Instance
	nonces map[string]string // of the instances that logged in: Vault wants the same one again
}

func (d *commandServer) routes() http.Handler {
	d.known, d.nonces = map[string]fleet.Instance{}, map[string]string{}
	mux := http.NewServeMux()
	// One command at a time, so that the maps need no lock.
	turn := make(chan struct{}, 1)
	handle := func(pattern string, do func(context.Context, *http.Request) (string, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			turn <- struct{}{}
			defer func() { <-turn }()
			text, err := do(r.Context(), r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			fmt.Fprint(w, text)
		})
	}
	handle("POST /launch", d.launch)
	handle("POST /login", d.login)
	handle("POST /terminate", d.terminate)
	handle("GET /instances/{id}", d.show)
	return mux
}

func (d *commandServer) launch(ctx context.Context, r *http.Request) (string, error) {
	launched, err := d.world.Fleet.Launch(ctx, fleet.Spec{Role: r.FormValue("role")})
	if err != nil {
		return "", err
	}
	i := launched[0]
	d.known[i.ID] = i
	if err := d.world.Fleet.Announce(ctx, i, "running"); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %s %s %s\n", i.ID, i.Role, i.PrivateIP, i.PrivateDNS), nil
}

func (d *commandServer) find(id string) (fleet.Instance, error) {
	i, ok := d.known[id]
	if !ok {
		return i, fmt.Errorf("%q was not launched here", id)
	}
	return i, nil
}

func (d *commandServer) login(ctx context.Context, r *http.Request) (string, error) {
	i, err := d.find(r.FormValue("id"))
	if err != nil {
		return "", err
	}
	session, err := d.world.Fleet.Login(ctx, d.world.AuthMount, i, d.nonces[i.ID])
	if err != nil {
		return "", err
	}
	d.nonces[i.ID] = session.Nonce
	return fmt.Sprintf("token %s\npolicies %v\nThe token is bound to %s: use curl --interface %s.\n", session.Token(), session.Auth.Policies, i.PrivateIP, i.PrivateIP), nil
}

func (d *commandServer) terminate(ctx context.Context, r *http.Request) (string, error) {
	i, err := d.find(r.FormValue("id"))
	if err != nil {
		return "", err
	}
	if err := d.world.Fleet.Terminate(ctx, i); err != nil {
		return "", err
	}
	return i.ID + " terminated\n", d.world.Fleet.Announce(ctx, i, "terminated")
}

func (d *commandServer) show(ctx context.Context, r *http.Request) (string, error) {
	id := r.PathValue("id")
	objects, err := d.world.ObjectsOf(ctx, id)
	if err != nil {
		return "", err
	}
	record, err := d.world.Record(ctx, id)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("ledger: state=%s profile=%s fqdn=%s last_error=%q\n", record.State, record.Profile, record.FQDN, record.LastError)
	for _, o := range objects {
		text += o + "\n"
	}
	return text, nil
}
