package engine

import (
	"math/rand/v2"
	"strconv"
)

// freeName makes a name for a container that was given none: two words, as docker's users expect. e.mu must be held.
func (e *Engine) freeName() string {
	left := []string{
		"amber", "bold", "brisk", "calm", "clever", "crisp", "dusty", "eager", "early", "fair", "fleet", "gentle", "glad", "green",
		"happy", "humble", "jolly", "keen", "kind", "lively", "lucid", "merry", "mild", "neat", "nimble", "proud", "quick", "quiet",
		"ready", "royal", "sharp", "silent", "smart", "solid", "steady", "sunny", "swift", "tidy", "vivid", "warm", "wise", "witty",
	}
	right := []string{
		"anchor", "badger", "beacon", "birch", "brook", "cedar", "cobalt", "comet", "coral", "crane", "delta", "ember", "falcon",
		"fern", "finch", "fjord", "garnet", "glacier", "harbor", "heron", "island", "juniper", "kestrel", "lagoon", "lark", "lynx",
		"maple", "meadow", "orchid", "osprey", "otter", "pebble", "quartz", "raven", "reef", "river", "sparrow", "spruce", "summit",
		"tundra", "valley", "willow",
	}
	for n := 0; ; n++ {
		name := left[rand.IntN(len(left))] + "_" + right[rand.IntN(len(right))]
		if n > 4 {
			name += strconv.Itoa(rand.IntN(10000))
		}
		if _, taken := e.names[name]; !taken {
			return name
		}
	}
}
