// Command release writes the files of a release from the built functions and commands: a zip of each function, a package of the
// templates with the functions for each processor, an archive of the command for each system, a list of the modules in them, a
// statement of their origin, and their checksums. The same input gives the same bytes. "make package" builds and calls it.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.stage, "stage", "", "`folder` with the built programs: lambda/<processor>/<function>/bootstrap and command/<system>-<processor>/vault-ec2")
	flag.StringVar(&o.source, "source", ".", "`folder` of the repository")
	flag.StringVar(&o.out, "out", "", "`folder` for the files, which must be empty")
	flag.StringVar(&o.version, "version", "", "the release's version without v, as in 1.2.3")
	flag.StringVar(&o.commit, "commit", "", "the commit's ID; empty if the sources differ from every commit")
	flag.StringVar(&o.flags, "flags", "", "the flags of go build")
	epoch := flag.Int64("epoch", 0, "the time of every file, in Unix `seconds`")
	flag.Parse()
	o.time = time.Unix(*epoch, 0).UTC()
	if err := run(os.Stdout, o); err != nil {
		fmt.Fprintf(os.Stderr, "writing the release's files: %v\n", err)
		os.Exit(1)
	}
}

// options are the input of a release.
type options struct {
	stage, source, out string
	version            string // without v
	commit             string // empty: unknown
	flags              string
	time               time.Time
}

// run writes the files of a release and prints their sizes.
func run(out io.Writer, o options) error {
	if o.stage == "" || o.out == "" || o.version == "" || o.time.Year() < 1980 { // a zip can hold no earlier time
		return fmt.Errorf("-stage, -out, -version and -epoch are needed: %+v", o)
	}
	programs, err := builtPrograms(o.stage)
	if err != nil {
		return err
	}
	licences, err := thirdPartyLicences(programs)
	if err != nil {
		return err
	}
	r := release{options: o, programs: programs, licences: licences}
	for _, write := range []func() error{r.functions, r.packages, r.commands, r.sbom} {
		if err := write(); err != nil {
			return err
		}
	}
	if err := r.write(licencesFile, licences); err != nil {
		return err
	}
	// The statement names all files before it, and the checksums name it too.
	if err := r.provenance(); err != nil {
		return err
	}
	if err := r.checksums(); err != nil {
		return err
	}
	return r.sizes(out)
}

// release are the input and the files of a release.
type release struct {
	options
	programs []program
	licences []byte
	files    []file // as written, by name
}

// file is a written file.
type file struct {
	name   string
	size   int
	sha256 string
}

// write writes a file of the release.
func (r *release) write(name string, content []byte) error {
	if err := os.WriteFile(filepath.Join(r.out, name), content, 0o644); err != nil { //nolint:gosec // others read a release
		return err
	}
	r.files = append(r.files, file{name: name, size: len(content), sha256: sum(content)})
	return nil
}

// sizes prints the size of each program and file.
func (r *release) sizes(out io.Writer) error {
	const row, unit = "%9.2f MiB  %s\n", 1 << 20
	for _, p := range r.programs {
		if _, err := fmt.Fprintf(out, row, float64(len(p.content))/unit, p.name); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	for _, f := range r.files {
		if _, err := fmt.Fprintf(out, row, float64(f.size)/unit, f.name); err != nil {
			return err
		}
	}
	return nil
}
