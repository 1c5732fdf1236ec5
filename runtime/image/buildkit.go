package image

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// BuildKit says where a BuildKit daemon is and how it is reached. The certificates are files, in PEM.
type BuildKit struct {
	Addr       string // unix:///path or tcp://host:port; empty for the usual socket, if it is there
	CA         string // of the authority that the server's certificate is of; empty: no TLS
	Cert, Key  string // this client's own certificate, if the server wants one
	ServerName string // what the server's certificate says, if not the host of Addr
}

// Check refuses what cannot be reached so.
func (b BuildKit) Check() error {
	tls := b.CA + b.Cert + b.Key + b.ServerName
	switch {
	case b.Addr != "" && !strings.HasPrefix(b.Addr, "unix:///") && !strings.HasPrefix(b.Addr, "tcp://"):
		return fmt.Errorf("--buildkit %q: want unix:///path or tcp://host:port", b.Addr)
	case tls != "" && !strings.HasPrefix(b.Addr, "tcp://"):
		return errors.New("--buildkit-tlscacert and its kin go with --buildkit tcp://host:port")
	case tls != "" && b.CA == "":
		return errors.New("--buildkit-tlscert, --buildkit-tlskey and --buildkit-tlsservername go with --buildkit-tlscacert")
	case (b.Cert == "") != (b.Key == ""):
		return errors.New("--buildkit-tlscert and --buildkit-tlskey go together")
	}
	for _, file := range []string{b.CA, b.Cert, b.Key} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("certificate for BuildKit: %w", err)
		}
	}
	return nil
}
