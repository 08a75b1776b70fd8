// Package bundle packs a folder of profiles into one value, for the ledger's table and for the input of a rehearsal. A bundle is a zip
// file with <profile's folder>/<file>. Its digest depends on the names and contents of its files alone, and not on times or on how
// they were compressed.
package bundle

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

const (
	// MaxSize bounds a packed bundle in bytes: an item of the table has at most 400 KB, with its key and attribute names.
	// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
	MaxSize = 380 << 10
	// maxFiles and maxTotal bound what a bundle unpacks to, in files and bytes.
	maxFiles = 2000
	maxTotal = 8 << 20
)

// Bundle is a set of profiles' files.
type Bundle struct {
	// Packed is the zip file.
	Packed []byte
	// Digest is the hex SHA-256 over the names and contents of all files.
	Digest string
	// Files has <profile's folder>/profile.yaml and the templates beside it.
	Files fs.FS
}

// Short returns the beginning of a digest, for people to read.
func Short(digest string) string { return digest[:min(len(digest), 12)] }

// Pack packs the folders of fsys that hold a profile.yaml: that file, and the files beside it that it names. It does not check the
// profiles.
func Pack(fsys fs.FS) (Bundle, error) {
	names, err := profileFiles(fsys)
	if err != nil {
		return Bundle{}, err
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return Bundle{}, fmt.Errorf("packing the profiles: %w", err)
		}
		file, err := w.Create(name)
		if err == nil {
			_, err = file.Write(text)
		}
		if err != nil {
			return Bundle{}, fmt.Errorf("packing %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return Bundle{}, fmt.Errorf("packing the profiles: %w", err)
	}
	if out.Len() > MaxSize {
		return Bundle{}, fmt.Errorf("packing the profiles: they take %d bytes, and at most %d fit into an item of the table: remove what is no template", out.Len(), MaxSize)
	}
	return Open(out.Bytes())
}

// profileFiles returns the paths of the files to pack.
func profileFiles(fsys fs.FS) ([]string, error) {
	profiles, err := fs.Glob(fsys, "*/profile.yaml")
	if err != nil {
		return nil, fmt.Errorf("listing the profiles: %w", err)
	}
	if len(profiles) == 0 {
		return nil, errors.New("no profile found: want <folder>/profile.yaml")
	}
	var names []string
	for _, profile := range profiles {
		entries, err := fs.ReadDir(fsys, path.Dir(profile))
		if err != nil {
			return nil, fmt.Errorf("listing the files of a profile: %w", err)
		}
		text, err := fs.ReadFile(fsys, profile)
		if err != nil {
			return nil, fmt.Errorf("reading a profile: %w", err)
		}
		for _, entry := range entries {
			name := path.Join(path.Dir(profile), entry.Name())
			if name != profile && !strings.Contains(string(text), entry.Name()) {
				continue // a note, an editor's copy, a key
			}
			info, err := fs.Stat(fsys, name)
			if err != nil {
				return nil, fmt.Errorf("listing the files of a profile: %w", err)
			}
			if info.Size() > maxTotal {
				return nil, fmt.Errorf("packing %s: it has %d bytes", name, info.Size())
			}
			if info.Mode().IsRegular() {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// Open opens a packed bundle and computes its digest.
func Open(packed []byte) (Bundle, error) {
	if len(packed) > MaxSize {
		return Bundle{}, fmt.Errorf("opening a bundle of profiles: it has %d bytes, more than %d", len(packed), MaxSize)
	}
	r, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		return Bundle{}, fmt.Errorf("opening a bundle of profiles: %w", err)
	}
	if len(r.File) > maxFiles {
		return Bundle{}, fmt.Errorf("opening a bundle of profiles: it has %d files, more than %d", len(r.File), maxFiles)
	}
	files := slices.SortedFunc(slices.Values(r.File), func(a, b *zip.File) int { return strings.Compare(a.Name, b.Name) })
	sum := sha256.New()
	room := int64(maxTotal)
	for i, file := range files {
		if !fs.ValidPath(file.Name) || strings.Contains(file.Name, `\`) || strings.Count(file.Name, "/") != 1 || (i > 0 && files[i-1].Name == file.Name) {
			return Bundle{}, fmt.Errorf("opening a bundle of profiles: %q is not <folder>/<file>, or appears twice", file.Name)
		}
		text, err := read(file, room)
		if err != nil {
			return Bundle{}, fmt.Errorf("reading %s in a bundle of profiles: %w", file.Name, err)
		}
		room -= int64(len(text))
		// Lengths keep two lists of files from having one text.
		fmt.Fprintf(sum, "%d %s %d %s", len(file.Name), file.Name, len(text), text)
	}
	return Bundle{Packed: packed, Digest: hex.EncodeToString(sum.Sum(nil)), Files: r}, nil
}

// OpenAs opens the packed bundle that the table has under a digest; nil if it has none. The files must have that digest: others may write to
// the table.
func OpenAs(packed []byte, digest string) (Bundle, error) {
	if packed == nil {
		return Bundle{}, fmt.Errorf("profiles %s: the table has no such bundle: run vault-ec2 apply with their folder", Short(digest))
	}
	b, err := Open(packed)
	if err == nil && b.Digest != digest {
		err = fmt.Errorf("the files have another digest, %s: find out who wrote them, and run vault-ec2 apply with the right folder", Short(b.Digest))
	}
	if err != nil {
		return Bundle{}, fmt.Errorf("profiles %s: %w", Short(digest), err)
	}
	return b, nil
}

// read returns the contents of a file of at most room bytes.
func read(file *zip.File, room int64) ([]byte, error) {
	r, err := file.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	text, err := io.ReadAll(io.LimitReader(r, room+1))
	if err == nil && int64(len(text)) > room {
		err = fmt.Errorf("the files have more than %d bytes", maxTotal)
	}
	return text, err
}
