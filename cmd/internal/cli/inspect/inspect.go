// Package inspect prints whole objects as docker's inspect commands do: indented JSON, compact JSON, or a template.
package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/template"

	"github.com/docker/cli/templates"

	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// FormatHelp documents --format of the inspect commands. The example is one that the command's own objects know.
func FormatHelp(example string) string {
	return "Format output: 'json' (compact JSON) or a Go template such as '" + example + "'"
}

// badTemplate is docker's exit code for a template that does not parse.
const badTemplate = 64

// parse gives a template that prints one object; 'json' is one, too. The error has docker's exit code.
func parse(format string) (*template.Template, error) {
	if format == "json" {
		format = "{{json .}}"
	}
	t, err := templates.Parse(format)
	if err != nil {
		return nil, console.Exit(badTemplate, fmt.Errorf("template parsing error: %w", err))
	}
	return t, nil
}

// Print prints an object that is no list through a template, in a line of its own.
func Print(out io.Writer, v any, format string) error {
	t, err := parse(format)
	if err != nil {
		return err
	}
	if err := t.Execute(out, v); err != nil {
		return console.Exit(badTemplate, fmt.Errorf("template parsing error: %w", err))
	}
	_, err = fmt.Fprintln(out)
	return err
}

// Getter finds one object: as a Go value for templates, and as the daemon's own JSON.
type Getter func(ref string) (value any, raw []byte, err error)

// Write prints the objects named by refs. Those that are found are printed even if others are not; the errors come
// together at the end.
func Write(out io.Writer, refs []string, format string, get Getter) error {
	var tmpl *template.Template
	if format != "" && format != "json" {
		t, err := parse(format)
		if err != nil {
			return err
		}
		tmpl = t
	}
	var (
		errs []error
		raws []json.RawMessage
		text bytes.Buffer
	)
	for _, ref := range refs {
		value, raw, err := get(ref)
		if err == nil && tmpl != nil {
			err = execute(&text, tmpl, value, raw)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		raws = append(raws, raw)
	}
	if err := flush(out, tmpl != nil, format == "json", text.Bytes(), raws); err != nil {
		return err
	}
	if err := errors.Join(errs...); err != nil {
		return console.Exit(1, err)
	}
	return nil
}

// execute tries the Go value first and then the plain JSON, which also knows fields that our types do not have.
func execute(out *bytes.Buffer, tmpl *template.Template, value any, raw []byte) error {
	var line bytes.Buffer
	err := tmpl.Execute(&line, value)
	if err != nil && raw != nil {
		var generic any
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if derr := dec.Decode(&generic); derr != nil {
			return fmt.Errorf("read the daemon's answer: %w", derr)
		}
		line.Reset()
		err = tmpl.Option("missingkey=error").Execute(&line, generic)
	}
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	line.WriteByte('\n')
	out.Write(line.Bytes())
	return nil
}

func flush(out io.Writer, templated, compact bool, text []byte, raws []json.RawMessage) error {
	if templated {
		if len(text) == 0 {
			text = []byte("\n")
		}
		_, err := out.Write(text)
		return err
	}
	var all, shaped bytes.Buffer
	all.WriteByte('[')
	for i, r := range raws {
		if i > 0 {
			all.WriteByte(',')
		}
		all.Write(bytes.TrimSpace(r))
	}
	all.WriteByte(']')
	shape := func() error { return json.Indent(&shaped, all.Bytes(), "", "    ") }
	if compact {
		shape = func() error { return json.Compact(&shaped, all.Bytes()) }
	}
	if err := shape(); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	shaped.WriteByte('\n')
	_, err := out.Write(shaped.Bytes())
	return err
}
