package parts

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// AccountID is moto's account for unknown callers.
const AccountID = "123456789012"

// Moto is a running moto server: the AWS APIs with their state in memory.
type Moto struct {
	URL     string // http://127.0.0.1:<port>
	Python  string // its interpreter, which also has the SAM translator
	Process *Process
}

// StartMoto starts moto on a free loopback port.
func StartMoto(ctx context.Context, w *Workspace) (*Moto, error) {
	python, err := Python(ctx, w)
	if err != nil {
		return nil, err
	}
	m := &Moto{Python: python}
	m.Process, m.URL, err = startOnFreePort(ctx, "/moto-api/data.json", func(port int) Command {
		return Command{
			Name: "moto", Path: python, Dir: w.Run, Log: w.Log("moto"),
			Args: []string{"-m", "moto.server", "-H", "127.0.0.1", "-p", strconv.Itoa(port)},
		}
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// startOnFreePort starts a server that needs its port as an argument. If the server
// ends at once, it tries another port: another process may have taken the first.
func startOnFreePort(ctx context.Context, path string, command func(port int) Command) (*Process, string, error) {
	var last error
	for range 3 {
		port, err := FreePort()
		if err != nil {
			return nil, "", err
		}
		p, err := Start(command(port))
		if err != nil {
			return nil, "", err
		}
		url := fmt.Sprintf("http://127.0.0.1:%d", port)
		waiting, cancel := context.WithTimeout(ctx, 60*time.Second)
		err = p.WaitReady(waiting, func(ctx context.Context) error { return answers(ctx, url+path) })
		cancel()
		if err == nil {
			return p, url, nil
		}
		_ = p.Stop()
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	return nil, "", last
}

// answers returns nil for any HTTP response, since a 400 also proves that the server works.
func answers(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}
