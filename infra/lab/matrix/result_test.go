package matrix

import (
	"strings"
	"testing"
)

// output is what go test -json prints for two tests with a table each, one use and one failure.
const output = `go: downloading example.com/x v1.0.0
{"Action":"output","Test":"TestToken_A","Output":"    attack_test.go:219: \n"}
{"Action":"output","Test":"TestToken_A","Output":"        | another's name | 58 | 58 | 0 |\n"}
{"Action":"output","Test":"TestToken_A","Output":"        | lifetime | 26 | 16 | 10 |\n"}
{"Action":"output","Test":"TestToken_A","Output":"        | all | 84 | 74 | 10 |\n"}
{"Action":"pass","Test":"TestToken_A/x/y"}
{"Action":"pass","Test":"TestToken_A/x"}
{"Action":"pass","Test":"TestToken_A"}
{"Action":"output","Test":"TestToken_B","Output":"        | another's name | 2 | 1 | 0 |\n"}
{"Action":"pass","Test":"TestToken_B"}
{"Action":"pass","Test":"TestCertificate_Works/as_a_list"}
{"Action":"fail","Test":"TestCertificate_Works/as_a_string"}
{"Action":"fail","Test":"TestCertificate_Works"}
{"Action":"pass","Test":"TestAgent_Starts/first"}
{"Action":"fail","Test":"TestAgent_Starts"}
{"Action":"fail"}
`

func TestResult_CountsAttemptsUsesAndFailures(t *testing.T) {
	r := result{server: "Vault 1.21.4"}
	if err := r.read(strings.NewReader(output)); err != nil {
		t.Fatal(err)
	}
	if want := (count{60, 59, 0}); r.classes["another's name"] != want {
		t.Errorf("the attempts of one class in two tests: want %v, got %v", want, r.classes["another's name"])
	}
	if _, sum := r.classes["all"]; sum {
		t.Error("a table's sum must not count as a class, or every attempt counts twice")
	}
	if r.uses != 4 || r.worked != 2 {
		t.Errorf("the uses that must work, half of which work: want 2 of 4, got %d of %d", r.worked, r.uses)
	}
	if got := strings.Join(r.failed, " "); got != "TestAgent_Starts TestCertificate_Works/as_a_string" {
		t.Errorf("a failed test must be named: got %q", got)
	}
	want := `| attempts: refused + harmless | Vault 1.21.4 |
| --- | --- |
| another's name | 60: 59 + 0, 1 GOT THROUGH |
| lifetime | 26: 16 + 10 |
| all attempts | 86: 75 + 10, 1 GOT THROUGH |
| uses that must work | 2 of 4 |
| tests | 6 |
| failures | 2 |
`
	if got := table([]result{r}); got != want {
		t.Errorf("the table: want\n%s\ngot\n%s", want, got)
	}
}
