package plots

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
)

// texts returns the texts of an SVG. It fails if the file is no XML.
func texts(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	inText := false
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s is no XML: %v", file, err)
		}
		switch v := token.(type) {
		case xml.StartElement:
			inText = v.Name.Local == "text"
		case xml.CharData:
			if inText {
				all = append(all, string(v))
			}
			inText = false
		}
	}
}

func TestWrite_DrawsEachPlotWithItsAxes(t *testing.T) {
	results, err := report.Load(filepath.Join("testdata", "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	written, err := Write(dir, results)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		StartsFile: {"instances a second", "bare HTTP, the writes to Vault alone", "the functions", "on Raft", "836", "425", "141"},
		EndsFile:   {"instances a second", "160"},
		ReadyFile:  {"seconds since the first message was received", "instances ready", "100 %", "Vault in memory, shared cores", "1,000 starts at once: time until an instance is ready"},
		FleetFile:  {"instances", "milliseconds for each instance", "100,000", "a full comparison", "raw reads of the same objects"},
	}
	if len(written) != len(want) {
		t.Errorf("wrote %q, want %d plots", written, len(want))
	}
	for file, all := range want {
		got := texts(t, filepath.Join(dir, file))
		for _, w := range all {
			if !slices.Contains(got, w) {
				t.Errorf("%s lacks the text %q: it has %q", file, w, got)
			}
		}
	}
}

// A run of one part has no figures for the other part's plots. An empty plot would look like a result.
func TestWrite_DrawsNothingWithoutFigures(t *testing.T) {
	dir := t.TempDir()
	written, err := Write(dir, report.Results{})
	if err != nil || len(written) > 0 {
		t.Errorf("wrote %q (%v), want no plot", written, err)
	}
}
