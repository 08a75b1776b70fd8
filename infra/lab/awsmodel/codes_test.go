package awsmodel

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var codeForm = regexp.MustCompile(`^[A-Z][A-Za-z]+(\.[A-Za-z]*)?$`)

// named returns the error codes that the program's own code compares with, by file: texts in comparisons, cases and lists of the files
// that ask an error for its code.
func named(t *testing.T) map[string][]string {
	t.Helper()
	out, folder := map[string][]string{}, filepath.Join("..", "..", "..", "internal")
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		var codes []string
		asks := false
		ast.Inspect(file, func(n ast.Node) bool {
			var texts []ast.Expr
			switch n := n.(type) {
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "ErrorCode" {
					asks = true
				}
				if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "errorCode" {
					asks = true
				}
			case *ast.BinaryExpr:
				texts = []ast.Expr{n.X, n.Y}
			case *ast.CaseClause:
				texts = n.List
			case *ast.CompositeLit:
				texts = n.Elts
			}
			for _, e := range texts {
				if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if text, err := strconv.Unquote(l.Value); err == nil && codeForm.MatchString(text) {
						codes = append(codes, text)
					}
				}
			}
			return true
		})
		if asks {
			out[path] = codes
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A misspelt code never matches, and nothing else shows it. The table's codes are AWS's.
func TestErrorCodes_OfTheProgramAreInTheTable(t *testing.T) {
	known := map[string]bool{
		// DynamoDB Local, and endpoints that stand in for DynamoDB, answer it to a call that they do not know.
		"UnknownOperationException": true,
		// States of Auto Scaling, in the same file as its error code.
		"Terminated": true, "RootVolumeReplaced": true,
	}
	for _, outcomes := range answers {
		for _, codes := range outcomes {
			for _, code := range codes {
				known[code] = true
			}
		}
	}
	all := named(t)
	for file, codes := range all {
		for _, code := range slices.Compact(codes) {
			if !known[code] {
				t.Errorf("%s names the error code %s, which is in no row of the table", file, code)
			}
		}
	}
	if len(all) < 5 {
		t.Errorf("want the files that ask errors for their codes, seen %v", all)
	}
}
