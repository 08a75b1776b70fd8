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

// The functions that write rules of a policy. Each rendering has its own.
const (
	pkiAccess      = "pkiAccess"
	sshAccess      = "sshAccess"
	identityAccess = "identityAccess"
)

// accessKinds are the kinds of roles to which a function of a policy gives access.
var accessKinds = map[string]Kind{pkiAccess: KindPKIRole, sshAccess: KindSSHRole}

// access is a function of a policy with the output whose rules it writes.
type access struct{ function, output string }

// functions are all functions that a template may call, with builtIns. Others are refused when the profile loads.
var functions = template.FuncMap{
	pkiAccess:      func(string) (string, error) { return "", errors.New("pkiAccess was called outside a rendering") },
	sshAccess:      func(string) (string, error) { return "", errors.New("sshAccess was called outside a rendering") },
	identityAccess: func() (string, error) { return "", errors.New("identityAccess was called outside a rendering") },
	"join":         func(sep string, list []string) string { return strings.Join(list, sep) },
	"lower":        strings.ToLower,
	"upper":        strings.ToUpper,
	"replace":      func(old, with, s string) string { return strings.ReplaceAll(s, old, with) },
	"trimPrefix":   func(prefix, s string) string { return strings.TrimPrefix(s, prefix) },
	"trimSuffix":   func(suffix, s string) string { return strings.TrimSuffix(s, suffix) },
}

// builtIns are the functions of text/template that a template may call.
var builtIns = map[string]bool{"and": true, "or": true, "not": true, "eq": true, "ne": true, "len": true, "index": true}

// compiled is a template with all names checked, also in branches that are not executed.
type compiled struct {
	file        string
	text        string // as in the profile
	template    *template.Template
	fields      map[string]bool // the values that it uses, by name, and "Tag"
	tags        []string        // the keys of the tags that it uses; an empty one for a key that is not a literal
	accesses    []access        // to roles
	document    bool            // it calls identityAccess
	fqdnUses    []error         // faults if a tag chooses the FQDN: the uses of the FQDN other than to print it
	tagSearches []error         // faults: the functions that search for a tag in other text
	branches    bool            // it has an if, a range or a with
}

// compile parses text and checks the whole tree. text/template finds a wrong field only in a branch that it executes, and so only
// for the first instance that takes the branch.
func compile(file, text string) (*compiled, error) {
	t, err := template.New(file).Option("missingkey=error").Funcs(functions).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parsing the template: %w", err)
	}
	c := &compiled{file: file, text: text, template: t, fields: map[string]bool{}}
	w := walk{compiled: c, tree: t.Tree}
	if len(t.Templates()) > 1 {
		w.refuse(t.Root, "{{define}} and {{block}} are not supported")
	}
	w.node(t.Root, true)
	return c, errors.Join(w.faults...)
}

// walk visits a parse tree. Every value is a string or a list of strings, so the dot inside range and with has no fields:
// .Name is right only at the root; elsewhere it is $.Name.
type walk struct {
	*compiled
	tree   *parse.Tree
	faults []error
}

// refuse adds a fault at a node.
func (w *walk) refuse(n parse.Node, format string, args ...any) {
	where, _ := w.tree.ErrorContext(n)
	w.faults = append(w.faults, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...)))
}

// refuseTag adds a fault for a pipe that uses a tag, and one to fqdnUses for a pipe that uses the FQDN. The format takes the used
// value.
func (w *walk) refuseTag(at parse.Node, p *parse.PipeNode, format string) {
	if uses(p, "Tag") {
		w.refuse(at, format, "a tag")
	}
	if uses(p, "FQDN") {
		where, _ := w.tree.ErrorContext(at)
		w.fqdnUses = append(w.fqdnUses, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, "an FQDN that a tag chooses")))
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
			w.refuse(n, "range goes over .IPv4s or .IPv6s only")
		}
		w.branch(&n.BranchNode, atRoot, false)
	case *parse.WithNode:
		w.branch(&n.BranchNode, atRoot, false)
	case *parse.PipeNode:
		if n == nil {
			return
		}
		if len(n.Decl) > 0 {
			w.refuseTag(n, n, "%s cannot be put into a variable: a branch could depend on it")
		}
		for _, c := range n.Cmds {
			w.command(c, atRoot)
		}
	case *parse.TemplateNode:
		w.refuse(n, "{{template}} is not supported")
	}
}

func (w *walk) branch(b *parse.BranchNode, atRoot, bodyAtRoot bool) {
	w.branches = true
	w.refuseTag(b.Pipe, b.Pipe, "no branch may depend on %s: a tag would choose what the instance is granted")
	w.node(b.Pipe, atRoot)
	w.node(b.List, bodyAtRoot)
	w.node(b.ElseList, atRoot)
}

func (w *walk) command(c *parse.CommandNode, atRoot bool) {
	for i, arg := range c.Args {
		switch arg := arg.(type) {
		case *parse.FieldNode:
			if !atRoot {
				w.refuse(arg, "%s is inside range or with, where the dot is one value: write $%s", arg, arg)
				continue
			}
			w.field(arg, arg.Ident, c.Args[i+1:])
		case *parse.DotNode:
			if atRoot {
				w.refuse(arg, "the dot alone is all values at once: name one")
			}
		case *parse.VariableNode:
			if len(arg.Ident) == 1 {
				if arg.Ident[0] == "$" {
					w.refuse(arg, "$ alone is all values at once: name one, as in $.FQDN")
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

// uses reports whether a pipe uses a value anywhere.
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

// overAddresses reports whether a range goes over one of the two lists of addresses.
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
		w.refuse(n, `.Tag needs a key: .Tag "role"`)
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
			w.refuseTag(n, p, n.Ident+" cannot use %s: its value may only be printed")
		}
	}
	switch n.Ident {
	case pkiAccess, sshAccess:
	case identityAccess:
		if w.document {
			w.refuse(n, "identityAccess appears twice: the policy would have two rules for one path")
		}
		w.document = true
		return
	default:
		w.addSearchFault(n, args)
		return
	}
	if len(args) == 1 {
		if s, ok := args[0].(*parse.StringNode); ok {
			w.accesses = append(w.accesses, access{n.Ident, s.Text})
			return
		}
	}
	w.refuse(n, `%s needs the literal name of a %s output: %[1]s "kubelet"`, n.Ident, accessKinds[n.Ident])
}

// addSearchFault adds a fault to tagSearches or fqdnUses for a function that searches for a tag or the FQDN in other text: its
// result depends on the value. A tag is allowed only as the last argument of a function, the text that it works on.
func (w *walk) addSearchFault(n *parse.IdentifierNode, args []parse.Node) {
	if builtIns[n.Ident] || len(args) < 2 {
		return
	}
	p := &parse.PipeNode{Cmds: []*parse.CommandNode{{Args: args[:len(args)-1]}}}
	where, _ := w.tree.ErrorContext(n)
	const format = "%s: %s cannot search for %s: its value may only be printed"
	if uses(p, "Tag") {
		w.tagSearches = append(w.tagSearches, fmt.Errorf(format, where, n.Ident, "a tag"))
	}
	if uses(p, "FQDN") {
		w.fqdnUses = append(w.fqdnUses, fmt.Errorf(format, where, n.Ident, "an FQDN that a tag chooses"))
	}
}

// execute renders the template. write returns the text of pkiAccess or sshAccess for an output, or of identityAccess, which has none. It is nil
// for a template that may use none of them.
func (c *compiled) execute(v values, write func(function, output string) (string, error)) (string, error) {
	t := c.template
	var denied error // the error of write, without the text that text/template adds
	if len(c.accesses) > 0 || c.document {
		clone, err := t.Clone()
		if err != nil {
			return "", fmt.Errorf("%s: %w", c.file, err)
		}
		call := func(function, output string) (string, error) {
			text, err := write(function, output)
			if err != nil {
				denied = fmt.Errorf("%s: %s %q: %w", c.file, function, output, err)
			}
			return text, err
		}
		t = clone.Funcs(template.FuncMap{
			pkiAccess:      func(output string) (string, error) { return call(pkiAccess, output) },
			sshAccess:      func(output string) (string, error) { return call(sshAccess, output) },
			identityAccess: func() (string, error) { return call(identityAccess, "") },
		})
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

// usesChosen reports whether the template uses a value that people choose: one that values.neutralised replaces.
func (c *compiled) usesChosen() bool {
	return c.fields["Tag"] || c.fields["FQDN"] || c.fields["PrivateDNSName"]
}

// fixedTexts returns the parts of the template that every rendering has as they are: the text outside actions and branches.
func (c *compiled) fixedTexts() []string {
	var texts []string
	for _, n := range c.template.Root.Nodes {
		if text, ok := n.(*parse.TextNode); ok {
			texts = append(texts, string(text.Text))
		}
	}
	return texts
}

// maxRendered bounds the text of one rendered template, in bytes. Vault refuses requests of 32 MiB, DynamoDB items of 400 KB.
const maxRendered = 256 << 10

// limited fails once left bytes are written, to stop a template that renders without end.
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

// valueNames are the names that a template can use, read from the type values.
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
