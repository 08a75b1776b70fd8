package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// entry is a file in an archive.
type entry struct {
	name         string
	content      []byte
	isExecutable bool
}

func (e entry) mode() os.FileMode {
	if e.isExecutable {
		return 0o755
	}
	return 0o644
}

// zipped returns a zip of files that all have one time.
func zipped(at time.Time, entries ...entry) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		header := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: at}
		header.SetMode(e.mode())
		w, err := z.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	err := z.Close()
	return b.Bytes(), err
}

// tarred returns a compressed tar of files that all have one time.
func tarred(at time.Time, entries ...entry) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: int64(e.mode()), Size: int64(len(e.content)), ModTime: at, Format: tar.FormatUSTAR}
		if err := t.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := t.Write(e.content); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	err := z.Close()
	return b.Bytes(), err
}

// functions writes a zip of each function, which Lambda takes as it is.
func (r *release) functions() error {
	for _, p := range r.programs {
		if !p.isLambda {
			continue
		}
		content, err := zipped(r.time, entry{"bootstrap", p.content, true})
		if err != nil {
			return err
		}
		if err := r.write(p.what+"-"+p.target+".zip", content); err != nil {
			return err
		}
	}
	return nil
}

// packages writes a zip of the templates, the functions that they name and the files beside them, for each processor.
func (r *release) packages() error {
	byTarget := map[string][]entry{}
	var targets []string
	for _, p := range r.programs {
		if !p.isLambda {
			continue
		}
		if !slices.Contains(targets, p.target) {
			targets = append(targets, p.target)
		}
		byTarget[p.target] = append(byTarget[p.target], entry{"build/" + p.what + "/bootstrap", p.content, true})
	}
	beside, err := r.beside()
	if err != nil {
		return err
	}
	for _, target := range targets {
		template, err := r.template(target)
		if err != nil {
			return err
		}
		entries := append([]entry{{name: "template.yaml", content: template}}, beside...)
		entries = append(entries, entry{name: licencesFile, content: r.licences})
		content, err := zipped(r.time, append(entries, byTarget[target]...)...)
		if err != nil {
			return err
		}
		if err := r.write("vault-ec2-provisioner-"+target+".zip", content); err != nil {
			return err
		}
	}
	return nil
}

// commands writes an archive of the command for each system.
func (r *release) commands() error {
	licence, err := os.ReadFile(filepath.Join(r.source, "LICENSE"))
	if err != nil {
		return err
	}
	for _, p := range r.programs {
		if p.isLambda {
			continue
		}
		content, err := tarred(r.time, entry{p.what, p.content, true}, entry{name: "LICENSE", content: licence}, entry{name: licencesFile, content: r.licences})
		if err != nil {
			return err
		}
		if err := r.write(p.what+"-"+p.target+".tar.gz", content); err != nil {
			return err
		}
	}
	return nil
}

// sourceVersion is the version in template.yaml, in place of which a release has its own.
const sourceVersion = "0.0.0-dev"

// template returns the stack's template with the release's version. It admits only the processor of the functions beside it: a stack
// with the other one is refused before it gets functions that cannot start.
func (r *release) template(target string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(r.source, "template.yaml"))
	if err != nil {
		return nil, err
	}
	text := string(content)
	for _, c := range []struct {
		from, to string
		times    int
	}{
		{sourceVersion, r.version, 2},
		{"    Default: arm64\n", "    Default: " + target + "\n", 1},
		{"    AllowedValues: [arm64, x86_64]\n", "    AllowedValues: [" + target + "]\n", 1},
	} {
		if n := strings.Count(text, c.from); n != c.times {
			return nil, fmt.Errorf("template.yaml has %q %d times, want %d", c.from, n, c.times)
		}
		text = strings.ReplaceAll(text, c.from, c.to)
	}
	return []byte(text), nil
}
