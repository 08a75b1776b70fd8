// Package browser drives a headless Chromium, for the tests of the page that vault-ec2 report writes.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdp "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Page is a file in a tab.
type Page struct {
	ctx context.Context
	end func()

	mu       sync.Mutex
	requests []string
	troubles []string
}

// find returns the browser's program: that of the variable CHROMIUM, or one on the PATH.
func find() (string, error) {
	if named := os.Getenv("CHROMIUM"); named != "" {
		return named, nil
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no Chromium on the PATH: make browser installs it on Debian; elsewhere install it, or set CHROMIUM to its path")
}

// timeout bounds one step in the browser. A print takes the longest.
const timeout = 4 * time.Minute

// Open opens a file in a new browser, and waits until its script has run.
func Open(ctx context.Context, file string) (*Page, error) {
	program, err := find()
	if err != nil {
		return nil, err
	}
	if file, err = filepath.Abs(file); err != nil {
		return nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(time.Minute))
	allocated, endBrowser := chromedp.NewExecAllocator(ctx, options...)
	tab, endTab := chromedp.NewContext(allocated)
	p := &Page{ctx: tab, end: func() { endTab(); endBrowser() }}
	if err := p.open(file); err != nil {
		p.Close()
		return nil, fmt.Errorf("opening %s in %s: %w; it said %q", file, program, err, p.Troubles())
	}
	return p, nil
}

func (p *Page) open(file string) error {
	if err := chromedp.Listen(p.ctx, p.note); err != nil {
		return err
	}
	if _, err := chromedp.Call(p.ctx, network.Enable, network.EnableParams{}); err != nil {
		return err
	}
	if err := p.View(1400, 900, "light"); err != nil {
		return err
	}
	if err := do(p, chromedp.Navigate("file://"+file)); err != nil {
		return err
	}
	return do(p, chromedp.Query("html[data-ready=yes]", chromedp.NodeReady))
}

// Close ends the browser.
func (p *Page) Close() { p.end() }

func run[T any](p *Page, a chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(p.ctx, timeout)
	defer cancel()
	return chromedp.Run(ctx, a)
}

func do(p *Page, a chromedp.Action[chromedp.Void]) error {
	_, err := run(p, a)
	return err
}

// note keeps requests, and what the browser says on its console.
func (p *Page) note(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, e.Request.URL)
	case *log.EventEntryAdded:
		p.troubles = append(p.troubles, e.Entry.Text)
	case *runtime.EventExceptionThrown:
		p.troubles = append(p.troubles, e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		p.troubles = append(p.troubles, fmt.Sprintf("console.%s", e.Type))
	case *cdp.EventJavascriptDialogOpening:
		p.troubles = append(p.troubles, "dialog: "+e.Message)
	}
}

// Requests returns the addresses that the page asked for, its own file among them.
func (p *Page) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.requests...)
}

// Troubles returns what the browser said on its console: errors of the script, refusals of the page's policy.
func (p *Page) Troubles() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.troubles...)
}

// Eval runs a script and returns its value, or that of its promise.
func Eval[T any](p *Page, script string) (T, error) {
	v, err := run(p, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		err = fmt.Errorf("running %s: %w", script, err)
	}
	return v, err
}

// Type presses the keys of a text, for the element that has the focus.
func (p *Page) Type(text string) error { return do(p, chromedp.KeyEvent(text)) }

// View sets the size of the window and the colour scheme, light or dark.
func (p *Page) View(width, height int64, scheme string) error {
	if err := do(p, chromedp.EmulateViewport(width, height)); err != nil {
		return err
	}
	return p.emulate("", scheme)
}

// emulate sets the medium, screen or print, and the colour scheme.
func (p *Page) emulate(medium, scheme string) error {
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Media: medium, Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	return err
}

// Screenshot returns the window as PNG.
func (p *Page) Screenshot() ([]byte, error) { return run(p, chromedp.CaptureScreenshot()) }

// Print prints the page by its own style and returns the PDF.
func (p *Page) Print() ([]byte, error) {
	return run(p, chromedp.PrintToPDF(func(o *cdp.PrintToPDFParams) { yes := true; o.PreferCSSPageSize, o.PrintBackground = &yes, &yes }))
}
