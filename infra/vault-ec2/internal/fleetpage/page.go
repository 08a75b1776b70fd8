// Package fleetpage writes the report of a fleet as one HTML page, which loads nothing from anywhere.
//
// The values in it come from others: names of instances come from their tags. They are JSON in an element that no browser runs, and the
// page's script shows each as text. The page's policy allows its own style and script alone, by their hashes.
package fleetpage

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

//go:embed assets/report.css
var style string

//go:embed assets/base.js
var base string

//go:embed assets/table.js
var table string

//go:embed assets/report.js
var sections string

//go:embed assets/times.js
var times string

//go:embed assets/search.js
var search string

//go:embed assets/body.html
var body string

// script returns the page's script. Its names are not seen from outside.
func script() string {
	return "(function () {\n'use strict';\n" + base + table + sections + times + search + "})();\n"
}

// Write writes the page with the data.
func Write(out io.Writer, d Data) error {
	script := script()
	head := `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src ` + hash(style) + `; script-src ` + hash(script) + `; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<title>Fleet report</title>
<style>` + style + `</style>
</head>
<body>
` + body + `<script type="application/json" id="data">`
	if _, err := io.WriteString(out, head); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	// The encoder writes <, > and & as \u003c, \u003e and \u0026: no value ends the element.
	if err := json.NewEncoder(out).Encode(d); err != nil {
		return fmt.Errorf("writing the page's data: %w", err)
	}
	if _, err := io.WriteString(out, "</script>\n<script>"+script+"</script>\n</body>\n</html>\n"); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

// hash returns the source of a Content-Security-Policy for a text between its tags.
// https://www.w3.org/TR/CSP3/#grammardef-hash-source
func hash(text string) string {
	sum := sha256.Sum256([]byte(strings.ReplaceAll(text, "\r\n", "\n")))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
