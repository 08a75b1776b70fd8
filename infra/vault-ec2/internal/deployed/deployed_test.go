package deployed

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cloudFormation answers DescribeStacks for the stack fleet.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStacks.html
func cloudFormation(t *testing.T, outputs string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		switch name := r.PostFormValue("StackName"); name {
		case "fleet":
			fmt.Fprintf(w, `<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult><Stacks><member>
				<StackName>fleet</StackName><StackStatus>UPDATE_COMPLETE</StackStatus>
				<Parameters><member><ParameterKey>VaultAuthMount</ParameterKey><ParameterValue>aws-ec2</ParameterValue></member></Parameters>
				<Outputs>%s</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>`, outputs)
		case "forbidden":
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized</Message></Error></ErrorResponse>`)
		default:
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `<ErrorResponse><Error><Code>ValidationError</Code><Message>Stack with id %s does not exist</Message></Error></ErrorResponse>`, name)
		}
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_CLOUDFORMATION": server.URL, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab",
		"AWS_PROFILE": "", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(name, value)
	}
}

const functionOutput = `<member><OutputKey>ReconcileFunctionName</OutputKey><OutputValue>fleet-Reconcile</OutputValue></member>`

func TestFind_AsksCloudFormationForAStack(t *testing.T) {
	cloudFormation(t, functionOutput)
	found, err := Choice{Stack: "fleet"}.Find(t.Context())
	if err != nil || found.Name != "fleet-Reconcile" || found.Config.Region != "eu-central-1" {
		t.Errorf("want the stack's function in the caller's region, got %q, %q, %v", found.Name, found.Config.Region, err)
	}
	for name, says := range map[string]string{
		"other":     "region eu-central-1 has no stack other",
		"forbidden": "cloudformation:DescribeStacks",
	} {
		if found, err := (Choice{Stack: name}).Find(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error with %q, got %q, %v", says, found.Name, err)
		}
	}
}

func TestFind_NamesAMissingOutput(t *testing.T) {
	cloudFormation(t, "")
	if found, err := (Choice{Stack: "fleet"}).Find(t.Context()); err == nil || !strings.Contains(err.Error(), "stack fleet (UPDATE_COMPLETE) has no output ReconcileFunctionName") {
		t.Errorf("want the missing output named, got %q, %v", found.Name, err)
	}
}

func TestStack_HasItsParameters(t *testing.T) {
	cloudFormation(t, functionOutput)
	c, err := LoadConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := FindStack(t.Context(), c, "fleet")
	if err != nil || s.Name != "fleet" || s.Region != "eu-central-1" || s.Parameters["VaultAuthMount"] != "aws-ec2" {
		t.Errorf("want name, region and parameters of the stack, got %+v, %v", s, err)
	}
}

func TestChoice_IsExactlyOne(t *testing.T) {
	for name, row := range map[string]struct {
		choice Choice
		says   string // of the error
	}{
		"none":                 {Choice{}, "--stack <name>"},
		"a stack and a name":   {Choice{Stack: "fleet", Function: "f"}, "use one of"},
		"a stack and a lab":    {Choice{Stack: "fleet", Lab: LabFile}, "use one of"},
		"all":                  {Choice{Stack: "fleet", Lab: LabFile, Function: "f"}, "use one of"},
		"a lab that ended":     {Choice{Lab: filepath.Join(t.TempDir(), "lab.env")}, "no lab is running"},
		"a file of no lab":     {Choice{Lab: labFile(t, "AWS_REGION=us-east-1\n")}, "has no RECONCILE_FUNCTION"},
		"a folder, not a file": {Choice{Lab: t.TempDir()}, "reading the lab's address"},
	} {
		if found, err := row.choice.Find(t.Context()); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: want an error with %q, got %q, %v", name, row.says, found.Name, err)
		}
	}
}

func TestChoice_NamesItsFlag(t *testing.T) {
	for want, c := range map[string]Choice{
		"--stack fleet": {Stack: "fleet"}, "--lab": {Lab: LabFile}, "--lab=/a/lab.env": {Lab: "/a/lab.env"}, "--function f": {Function: "f"},
	} {
		if got := c.Flag(); got != want {
			t.Errorf("%+v: want %q for a command to be copied, got %q", c, want, got)
		}
	}
}

func labFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lab.env")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A developer's own settings are for other accounts: no call for the lab may go there.
func TestLab_IgnoresTheCallersSettings(t *testing.T) {
	file := labFile(t, "AWS_ENDPOINT_URL_LAMBDA=http://127.0.0.1:1\nAWS_REGION=us-east-1\nAWS_ACCESS_KEY_ID=lab\nAWS_SECRET_ACCESS_KEY=secret\n"+
		"AWS_SESSION_TOKEN=\nAWS_PROFILE=\nRECONCILE_FUNCTION=lab-Reconcile\n")
	for name, value := range map[string]string{"AWS_REGION": "eu-west-1", "AWS_PROFILE": "none-such", "AWS_ACCESS_KEY_ID": "mine", "AWS_SESSION_TOKEN": "mine"} {
		t.Setenv(name, value)
	}
	found, err := Choice{Lab: file}.Find(t.Context())
	if err != nil || found.Name != "lab-Reconcile" || found.Config.Region != "us-east-1" || *found.Config.BaseEndpoint != "http://127.0.0.1:1" {
		t.Fatalf("want the lab's function, region and address, got %+v, %v", found, err)
	}
	if keys, err := found.Config.Credentials.Retrieve(t.Context()); err != nil || keys.AccessKeyID != "lab" || keys.SessionToken != "" {
		t.Errorf("want the lab's keys, got %s, %v", keys.AccessKeyID, err)
	}
}

func TestRegion_MissingNamesTheVariable(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	if _, err := (Choice{Function: "f"}).Find(t.Context()); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("got %v", err)
	}
}
