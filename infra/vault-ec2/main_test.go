package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write what is printed into testdata")

// command runs the command with args and returns its exit status and output.
func command(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, streams{in: strings.NewReader(""), out: &out, err: &errs})
	return status, out.String(), errs.String()
}

func TestHelp_ShowsEveryFlag(t *testing.T) {
	for _, name := range []string{"", "setup", "render", "lint", "plan", "apply", "profiles", "reconcile", "explain", "who", "report", "certificates", "doctor", "teardown", "version"} {
		args := append(strings.Fields(name), "--help")
		status, got, errs := command(t, args...)
		if status != 0 || errs != "" {
			t.Errorf("%q: want the exit status 0, got %d, %s", args, status, errs)
		}
		file := filepath.Join("testdata", "vault-ec2"+strings.TrimRight("-"+name, "-")+".golden")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil || got != string(want) {
			t.Errorf("%v (make golden writes it)\ngot\n%s\nwant\n%s", err, got, want)
		}
	}
}

// Scripts of others call the commands that this one replaces, whose flags have one dash.
func TestFlags_OfEarlierCommandsStayAccepted(t *testing.T) {
	for command, calls := range map[string][]string{
		"setup": {
			"-auth-mount m", "-login-mount m", "-role-prefix p", "-deployment d", "-function-role provision=arn:aws:iam::1:role/p", "-server-id v", "-sts-region r",
			"-aws-endpoint e", "-aws-keys", "-aws-keys=true", "-resolve-unique-ids=false", "-sts-role 111122223333=arn:aws:iam::1:role/p", "-sts-external-id x",
			"-certificate me-central-1=file", "-also-path alice/pki", "-also-auth-mount old", "-set-alias", "-keep-alias", "-revoke-certificates", "-pki",
			"-templates-dir d", "-dry-run", "-print-policy", "-h", "-help",
		},
		"reconcile": {
			"-function f", "-mode detect", "-mode=correct", "-mode doctor", "-mode teardown", "-instance i-0a -instance i-0b", "-profile p", "-force", "-force=true",
			"-gone-account 111122223333", "-gone-instance i-0a", "-at-most 3", "-yes n", "-json", "-h", "-help",
		},
		"render": {
			"-templates t", "-profile p", "-instance i", "-facts f", "-check", "-max-certificate-ttl 720h", "-role-prefix p", "-deployment d", "-auth-mount m", "-h", "-help",
		},
	} {
		for _, call := range calls {
			parse := func(args []string) (map[string]string, error) {
				root := rootCommand()
				args = withSecondDashes(root, append([]string{command}, args...))
				found, rest, err := root.Find(args)
				if err != nil {
					t.Fatal(err)
				}
				err = found.ParseFlags(rest)
				values := map[string]string{}
				found.Flags().Visit(func(f *pflag.Flag) { values[f.Name] = f.Value.String() })
				if left := found.Flags().Args(); len(left) > 0 {
					t.Errorf("%s %q: %q is taken for arguments", command, args, left)
				}
				return values, err
			}
			one := strings.Fields(call)
			two := slices.Clone(one)
			for i, arg := range two {
				if strings.HasPrefix(arg, "-") && arg != "-h" {
					two[i] = "-" + arg
				}
			}
			asOne, err := parse(one)
			asTwo, errOfTwo := parse(two)
			if err != nil || errOfTwo != nil || len(asOne) == 0 || len(asOne) != len(asTwo) {
				t.Errorf("%s %s: want the same with one and two dashes, got %v, %v and %v, %v", command, call, asOne, err, asTwo, errOfTwo)
			}
			for name, value := range asOne {
				if asTwo[name] != value {
					t.Errorf("%s %s: --%s is %q with one dash and %q with two", command, call, name, value, asTwo[name])
				}
			}
		}
	}
}

func TestCompletion_KnowsTheValuesOfFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"detect\ncorrect\n": {"reconcile", "--mode", ""},
		"table\njson\n":     {"doctor", "--output", ""},
		"doctor\t":          {"doc"},
	} {
		if status, out, _ := command(t, append([]string{"__complete"}, args...)...); status != 0 || !strings.HasPrefix(out, want) {
			t.Errorf("%q: want %q, got status %d, %q", args, want, status, out)
		}
	}
}

func TestRun_ExitStatusAndOutputAreKept(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	t.Setenv("VAULT_MAX_RETRIES", "0")
	templates := filepath.Join("..", "..", "templates")
	empty := t.TempDir()
	for call, row := range map[string]struct {
		status      int
		out, errors string // parts of the output
	}{
		"version":                   {0, "vault-ec2 ", ""},
		"lint " + templates:         {0, "all 3 profiles", ""},
		"lint -o json " + templates: {0, "[]", ""},
		"lint -max-certificate-ttl 24h " + templates: {1, "MAX_CERTIFICATE_TTL", ""},
		"lint " + filepath.Join(empty, "none"):       {2, "", "vault-ec2 lint: reading the folder"},
		"lint a b":                                   {2, "", "vault-ec2 lint --help"},
		"render -check -templates " + templates:      {0, "all 3 profiles", ""},
		"render -check -templates " + empty:          {1, "no profile found", ""},
		"render -profile x -templates " + empty:      {1, "", "vault-ec2 render: the profiles in"},
		"render -profile x -templates " + templates:  {2, "", `there is no profile "x"`},
		"render":              {2, "", "name a profile with --profile"},
		"render -profile x y": {2, "", `"y"`},
		"render --profile x --templates-dir " + templates: {2, "", `there is no profile "x"`},
		"setup --print-policy --templates " + empty:       {1, "", "no profile found"},
		"render --output yaml":                            {2, "", "want table or json"},
		"reconcile":                                       {2, "", "--stack <name>"},
		"reconcile -function f":                           {2, "", "AWS_REGION"},
		"reconcile -function f -stack s":                  {2, "", "use one of"},
		"reconcile -function f -mode repair":              {2, "", "--mode repair"},
		"reconcile -function f -region x":                 {2, "", "vault-ec2 reconcile --help"},
		"reconcile -function f i-0a":                      {2, "", "i-0a"},
		"doctor --lab=" + filepath.Join(empty, "none"):    {2, "", "no lab is running"},
		"doctor --function f --mode detect":               {2, "", "--mode"},
		"plan --stack s":                                  {2, "", "arg"},
		"plan --stack s " + filepath.Join(empty, "none"):  {2, "", "no such file"},
		"apply --stack s":                                 {2, "", "--previous"},
		"apply --stack s --previous " + templates:         {2, "", "--previous"},
		"apply --function f " + templates:                 {2, "", "AWS_REGION"},
		"profiles":                                        {2, "", "--stack <name>"},
		"teardown":                                        {2, "", "--stack <name>"},
		"explain --stack s":                               {2, "", "arg"},
		"explain i-0a":                                    {2, "", "--stack <name>"},
		"explain --function f --account 1 i-0a":           {2, "", "--region"},
		"who --function f":                                {2, "", "name what to look for"},
		"who --function f --certificate " + templates:     {2, "", "reading the certificate"},
		"who --function f --certificate main_test.go":     {2, "", "no certificate in PEM"},
		"setup":                          {1, "", "vault-ec2 setup: "},
		"setup -stack s":                 {1, "", "AWS_REGION"},
		"setup -print-policy":            {0, "path \"", ""},
		"setup -function-role provision": {2, "", "want key=value"},
		"setup -also-path sys":           {2, "", "also-path"},
		"setup -no-such-flag":            {2, "", "vault-ec2 setup --help"},
		"":                               {2, "", "name a command"},
		"recouncile":                     {2, "", "reconcile"},
		"help setup":                     {0, "--dry-run", ""},
		"completion bash":                {0, "bash completion", ""},
	} {
		status, out, errs := command(t, strings.Fields(call)...)
		if status != row.status || !strings.Contains(out, row.out) || !strings.Contains(errs, row.errors) || (errs == "") != (row.errors == "") {
			t.Errorf("%q: want status %d, %q and the error %q, got %d, %q and %q", call, row.status, row.out, row.errors, status, out, errs)
		}
	}
}
