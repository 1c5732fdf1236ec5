package console

import (
	"bufio"
	"fmt"
	"strings"
)

// Confirm asks; anything but y or yes is no, an end of input too.
func (c *Console) Confirm(warning string) bool {
	fmt.Fprintf(c.Out, "%s\nAre you sure you want to continue? [y/N] ", warning)
	line, _ := bufio.NewReader(c.In).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}
