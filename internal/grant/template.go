package grant

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
)

// functions is the whole list a template may call; text/template's other built-ins are refused when the profile
// loads. pkiAccess is bound anew for each rendering.
var functions = template.FuncMap{
	"pkiAccess":  func(string) (string, error) { return "", errors.New("pkiAccess stands outside a rendering") },
	"join":       func(sep string, list []string) string { return strings.Join(list, sep) },
	"lower":      strings.ToLower,
	"upper":      strings.ToUpper,
	"replace":    func(old, new, s string) string { return strings.ReplaceAll(s, old, new) },
	"trimPrefix": func(prefix, s string) string { return strings.TrimPrefix(s, prefix) },
	"trimSuffix": func(suffix, s string) string { return strings.TrimSuffix(s, suffix) },
}

// builtIns are those of text/template's own functions that a template may call as well.
var builtIns = map[string]bool{"and": true, "or": true, "not": true, "eq": true, "ne": true, "len": true, "index": true}

// compiled is a template whose every name was checked, branches that are not taken included.
type compiled struct {
	file     string
	text     string // as it stands in the profile
	template *template.Template
	fields   map[string]bool // the values it uses, by name; "Tag" among them
	tags     []string        // the keys of the tags it uses; empty for one that is not a literal
	pki      []string        // the outputs it names by pkiAccess
	byFQDN   []error         // where it decides by the FQDN, which is a fault when a tag chooses the FQDN
	byTagToo []error         // where a function searches for a tag in other text
	branches bool            // it has an if, a range or a with
}

// compile parses text and walks the whole tree: text/template itself finds a wrong field only in a branch that is
// executed, and then on the first instance that takes it.
func compile(file, text string) (*compiled, error) {
	t, err := template.New(file).Option("missingkey=error").Funcs(functions).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parsing the template: %w", err)
	}
	c := &compiled{file: file, text: text, template: t, fields: map[string]bool{}}
	w := walk{compiled: c, tree: t.Tree}
	if len(t.Templates()) > 1 {
		w.refuse(t.Root, "{{define}} and {{block}} are not offered")
	}
	w.node(t.Root, true)
	return c, errors.Join(w.faults...)
}

// walk visits a parse tree. Every value is a string or a list of strings, so inside range and with the dot has no
// fields: only at the root is .Name right, and elsewhere $.Name.
type walk struct {
	*compiled
	tree   *parse.Tree
	faults []error
}

func (w *walk) refuse(n parse.Node, format string, args ...any) {
	where, _ := w.tree.ErrorContext(n)
	w.faults = append(w.faults, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...)))
}

// refuseTag refuses a pipe that uses a tag. One that uses the FQDN is noted: it is refused where a tag chooses the FQDN.
// The format takes what was used.
func (w *walk) refuseTag(at parse.Node, p *parse.PipeNode, format string) {
	if uses(p, "Tag") {
		w.refuse(at, format, "a tag")
	}
	if uses(p, "FQDN") {
		where, _ := w.tree.ErrorContext(at)
		w.byFQDN = append(w.byFQDN, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, "the FQDN, which a tag chooses here")))
	}
}

func (w *walk) node(n parse.Node, atRoot bool) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, c := range n.Nodes {
			w.node(c, atRoot)
		}
	case *parse.ActionNode:
		w.node(n.Pipe, atRoot)
	case *parse.IfNode:
		w.branch(&n.BranchNode, atRoot, atRoot)
	case *parse.RangeNode:
		if !overAddresses(n.Pipe) {
			w.refuse(n, "range goes over .IPv4s or .IPv6s and nothing else")
		}
		w.branch(&n.BranchNode, atRoot, false)
	case *parse.WithNode:
		w.branch(&n.BranchNode, atRoot, false)
	case *parse.PipeNode:
		if n == nil {
			return
		}
		if len(n.Decl) > 0 {
			w.refuseTag(n, n, "%s is written where it stands, not kept in a variable: a branch could hang on it")
		}
		for _, c := range n.Cmds {
			w.command(c, atRoot)
		}
	case *parse.TemplateNode:
		w.refuse(n, "{{template}} is not offered")
	}
}

func (w *walk) branch(b *parse.BranchNode, atRoot, bodyAtRoot bool) {
	w.branches = true
	w.refuseTag(b.Pipe, b.Pipe, "no branch hangs on %s: whoever tags an instance would choose what it is granted")
	w.node(b.Pipe, atRoot)
	w.node(b.List, bodyAtRoot)
	w.node(b.ElseList, atRoot)
}

func (w *walk) command(c *parse.CommandNode, atRoot bool) {
	for i, arg := range c.Args {
		switch arg := arg.(type) {
		case *parse.FieldNode:
			if !atRoot {
				w.refuse(arg, "%s stands inside range or with, where the dot is one value: write $%s", arg, arg)
				continue
			}
			w.field(arg, arg.Ident, c.Args[i+1:])
		case *parse.DotNode:
			if atRoot {
				w.refuse(arg, "the dot itself stands for all values at once: name one")
			}
		case *parse.VariableNode:
			if len(arg.Ident) == 1 {
				if arg.Ident[0] == "$" {
					w.refuse(arg, "$ itself stands for all values at once: name one, as in $.FQDN")
				}
				continue
			}
			if arg.Ident[0] != "$" {
				w.refuse(arg, "%s has no fields", arg.Ident[0])
				continue
			}
			w.field(arg, arg.Ident[1:], c.Args[i+1:])
		case *parse.ChainNode:
			w.refuse(arg, "%s: the value has no fields", arg)
		case *parse.IdentifierNode:
			w.function(arg, c.Args[i+1:])
		case *parse.PipeNode:
			w.node(arg, atRoot)
		}
	}
}

// uses reports whether a value stands anywhere in a pipe.
func uses(p *parse.PipeNode, value string) bool {
	if p == nil {
		return false
	}
	for _, c := range p.Cmds {
		for _, arg := range c.Args {
			switch arg := arg.(type) {
			case *parse.FieldNode:
				if arg.Ident[0] == value {
					return true
				}
			case *parse.VariableNode:
				if slices.Contains(arg.Ident, value) {
					return true
				}
			case *parse.PipeNode:
				if uses(arg, value) {
					return true
				}
			}
		}
	}
	return false
}

// overAddresses tells whether a range goes over one of the two lists there are.
func overAddresses(p *parse.PipeNode) bool {
	if len(p.Cmds) != 1 || len(p.Cmds[0].Args) != 1 {
		return false
	}
	var path []string
	switch arg := p.Cmds[0].Args[0].(type) {
	case *parse.FieldNode:
		path = arg.Ident
	case *parse.VariableNode:
		if arg.Ident[0] == "$" {
			path = arg.Ident[1:]
		}
	}
	return len(path) == 1 && (path[0] == "IPv4s" || path[0] == "IPv6s")
}

func (w *walk) field(n parse.Node, path []string, args []parse.Node) {
	name := path[0]
	switch {
	case !valueNames[name]:
		w.refuse(n, "unknown field .%s", name)
	case len(path) > 1:
		w.refuse(n, ".%s has no field %s", name, path[1])
	case name == "Tag" && len(args) == 0:
		w.refuse(n, `.Tag wants the key: .Tag "role"`)
	default:
		w.fields[name] = true
	}
	if name == "Tag" && len(args) > 0 {
		key, _ := args[0].(*parse.StringNode)
		if key == nil {
			key = &parse.StringNode{}
		}
		w.tags = append(w.tags, key.Text)
	}
}

func (w *walk) function(n *parse.IdentifierNode, args []parse.Node) {
	if _, ours := functions[n.Ident]; !ours && !builtIns[n.Ident] {
		w.refuse(n, "unknown function %s", n.Ident)
		return
	}
	if builtIns[n.Ident] {
		for _, arg := range args {
			p := &parse.PipeNode{Cmds: []*parse.CommandNode{{Args: []parse.Node{arg}}}}
			w.refuseTag(n, p, n.Ident+" says nothing about %s: it is only ever written where it stands")
		}
	}
	if n.Ident != "pkiAccess" {
		w.searches(n, args)
		return
	}
	if len(args) == 1 {
		if s, ok := args[0].(*parse.StringNode); ok {
			w.pki = append(w.pki, s.Text)
			return
		}
	}
	w.refuse(n, `pkiAccess wants the literal name of a pki-role output: pkiAccess "kubelet"`)
}

// searches notes a function that is told to look for a tag, or an FQDN, in other text: whether it is found decides what is
// written. Only the last argument is what a function works on.
func (w *walk) searches(n *parse.IdentifierNode, args []parse.Node) {
	if builtIns[n.Ident] || len(args) < 2 {
		return
	}
	p := &parse.PipeNode{Cmds: []*parse.CommandNode{{Args: args[:len(args)-1]}}}
	where, _ := w.tree.ErrorContext(n)
	const format = "%s: %s is told to look for %s: it is only ever written where it stands"
	if uses(p, "Tag") {
		w.byTagToo = append(w.byTagToo, fmt.Errorf(format, where, n.Ident, "a tag"))
	}
	if uses(p, "FQDN") {
		w.byFQDN = append(w.byFQDN, fmt.Errorf(format, where, n.Ident, "the FQDN, which a tag chooses here"))
	}
}

// execute renders the template. access gives the text for pkiAccess; nil where a template may not use it.
func (c *compiled) execute(v values, access func(output string) (string, error)) (string, error) {
	t := c.template
	var denied error // by access: the reason as it is, which the template's own error would bury
	if len(c.pki) > 0 {
		clone, err := t.Clone()
		if err != nil {
			return "", fmt.Errorf("%s: %w", c.file, err)
		}
		t = clone.Funcs(template.FuncMap{"pkiAccess": func(output string) (string, error) {
			text, err := access(output)
			if err != nil {
				denied = fmt.Errorf("%s: pkiAccess %q: %w", c.file, output, err)
			}
			return text, err
		}})
	}
	var out strings.Builder
	if err := t.Execute(&limited{&out, maxRendered}, v); err != nil {
		if denied != nil {
			return "", denied
		}
		return "", fmt.Errorf("rendering %s: %w", c.file, err)
	}
	return out.String(), nil
}

// maxRendered bounds one rendered template, in bytes; Vault refuses requests of 32 MiB, DynamoDB items of 400 KB.
const maxRendered = 256 << 10

// limited stops a template that would render without end.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("the text has more than %d bytes", maxRendered)
	}
	return l.w.Write(p)
}

// valueNames are the names a template can use, read off the type so that the two cannot part.
var valueNames = func() map[string]bool {
	names := map[string]bool{}
	t := reflect.TypeFor[values]()
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			names[f.Name] = true
		}
	}
	for i := range t.NumMethod() {
		names[t.Method(i).Name] = true
	}
	return names
}()
