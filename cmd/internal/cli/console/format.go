package console

// FormatHelp documents --format of the listings.
const FormatHelp = `Format output: 'table', 'table TEMPLATE', 'json', or a Go template such as '{{.ID}} {{.Name}}'`
