package bundle_test

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// baseline is a folder with one profile.
func baseline() fstest.MapFS {
	return fstest.MapFS{
		"worker/profile.yaml": {Data: []byte("name: a-worker\nuses: [policy.tmpl, role.tmpl]\n"), ModTime: time.Unix(1, 0)},
		"worker/policy.tmpl":  {Data: []byte("path {}\n")},
	}
}

func mustPack(t *testing.T, files fs.FS) bundle.Bundle {
	t.Helper()
	b, err := bundle.Pack(files)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBundle_HoldsTheProfilesAsTheyAre(t *testing.T) {
	b := mustPack(t, templates.FS)
	packed, err := bundle.Open(b.Packed)
	if err != nil || packed.Digest != b.Digest {
		t.Fatalf("want the digest %s after the packed bundle was opened, got %s, %v", b.Digest, packed.Digest, err)
	}
	want, err := grant.Load(templates.FS)
	if err != nil {
		t.Fatal(err)
	}
	got, err := grant.Load(packed.Files)
	if err != nil {
		t.Fatalf("the packed profiles must load: %v", err)
	}
	for i, p := range want.Profiles {
		if got.Profiles[i].Digest != p.Digest {
			t.Errorf("profile %s has another digest than its folder: it differs in a file", p.Name)
		}
	}
}

// A base is packed with the profiles that extend it.
func TestBundle_HoldsTheBases(t *testing.T) {
	files := fstest.MapFS{
		"common/profile.yaml": {Data: []byte("abstract: true\nbase_path: a\nfqdn: \"{{ .PrivateDNSName }}\"\nauth: {token_ttl: 1h, token_max_ttl: 1h}\noutputs: [{name: own, type: policy, template: own.hcl.tmpl}]\n")},
		"common/own.hcl.tmpl": {Data: []byte("path \"a/{{ .InstanceID }}\" {\n  capabilities = [\"read\"]\n}\n")},
		"worker/profile.yaml": {Data: []byte("name: a-worker\nextends: common\nmatch: {iam_role_arn: \"arn:aws:iam::*:role/worker\"}\n")},
	}
	set, err := grant.Load(mustPack(t, files).Files)
	if err != nil || len(set.Profiles) != 1 {
		t.Errorf("want the packed profile to load with its base, got %v, %v", set, err)
	}
}

func TestDigest_IsThatOfNamesAndContents(t *testing.T) {
	want := mustPack(t, baseline()).Digest
	same := baseline()
	same["worker/profile.yaml"].ModTime = time.Unix(2e9, 0)
	same["worker/.profile.yaml.swp"] = &fstest.MapFile{Data: []byte("x")}
	same["worker/policy.tmpl~"] = &fstest.MapFile{Data: []byte("x")}
	same["worker/id_rsa"] = &fstest.MapFile{Data: []byte("x")}
	same["README.md"] = &fstest.MapFile{Data: []byte("x")}
	same["notes/readme"] = &fstest.MapFile{Data: []byte("x")}
	if got := mustPack(t, same).Digest; got != want {
		t.Error("want the same digest with other times, files that no profile names")
	}
	for name, change := range map[string]func(fstest.MapFS){
		"another text":    func(f fstest.MapFS) { f["worker/policy.tmpl"].Data = []byte("path {} \n") },
		"another name":    func(f fstest.MapFS) { f["worker/role.tmpl"] = f["worker/policy.tmpl"]; delete(f, "worker/policy.tmpl") },
		"one file more":   func(f fstest.MapFS) { f["worker/role.tmpl"] = &fstest.MapFile{} },
		"another folder":  func(f fstest.MapFS) { f["w/profile.yaml"] = f["worker/profile.yaml"]; delete(f, "worker/profile.yaml") },
		"one file larger": func(f fstest.MapFS) { f["worker/policy.tmpl"].Data = []byte("path {}\n18 worker/role.tmpl 0 ") },
	} {
		files := baseline()
		change(files)
		if mustPack(t, files).Digest == want {
			t.Errorf("%s: want another digest: it is what a pinned digest allows", name)
		}
	}
}

// zipped returns a zip file with files of given names and contents, in order.
func zipped(t *testing.T, files ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for i := 0; i < len(files); i += 2 {
		f, err := w.Create(files[i])
		if err == nil {
			_, err = f.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestOpen_RefusesWhatPackDoesNotWrite(t *testing.T) {
	if _, err := bundle.Open(zipped(t, "w/profile.yaml", "a", "w/p.tmpl", "b")); err != nil {
		t.Fatalf("want the valid bundle opened, got %v", err)
	}
	var many []string
	for i := range 2001 {
		many = append(many, fmt.Sprintf("w/%d", i), "")
	}
	for name, packed := range map[string][]byte{
		"no zip file":    []byte("name: a-worker"),
		"a path upwards": zipped(t, "../profile.yaml", "a"),
		"no folder":      zipped(t, "profile.yaml", "a"),
		"a backslash":    zipped(t, `..\w/profile.yaml`, "a"),
		"a deep folder":  zipped(t, "a/b/profile.yaml", "a"),
		"a file twice":   zipped(t, "w/profile.yaml", "a", "w/profile.yaml", "b"),
		"a huge file":    zipped(t, "w/profile.yaml", strings.Repeat("a", 9<<20)),
		"many files":     zipped(t, many...),
		"a cut one":      zipped(t, "w/profile.yaml", "a")[:60],
	} {
		if _, err := bundle.Open(packed); err == nil {
			t.Errorf("%s: want it refused", name)
		}
	}
}

func TestPack_SaysWhatDoesNotFit(t *testing.T) {
	large := baseline()
	noise := make([]byte, bundle.MaxSize)
	_, _ = rand.Read(noise)
	large["worker/role.tmpl"] = &fstest.MapFile{Data: noise}
	for says, files := range map[string]fs.FS{"at most": large, "no profile found": fstest.MapFS{}} {
		if _, err := bundle.Pack(files); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error that says %q, got %v", says, err)
		}
	}
}
