package cluster

import (
	"bytes"
	"strings"
	"testing"
)

func sealed(t testing.TB, phrase, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := seal(&b, phrase, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSeal(t *testing.T) {
	text := strings.Repeat("all that was decided\n", 10_000) // more than one of age's chunks
	file := sealed(t, "phrase", text)
	if bytes.Contains(file, []byte("decided")) {
		t.Fatal("it can be read")
	}
	if got, err := unseal(bytes.NewReader(file), "phrase"); err != nil || string(got) != text {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	flipped := bytes.Clone(file)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		file         []byte
		phrase, says string
	}{
		"wrong passphrase": {file, "Phrase", "the passphrase is wrong"},
		"cut off":          {file[:len(file)-1], "phrase", "damaged, or cut off"},
		"half of it":       {file[:len(file)/2], "phrase", "damaged, or cut off"},
		"one bit":          {flipped, "phrase", "damaged, or cut off"},
		"empty":            {nil, "phrase", "not what minictl cluster backup writes"},
		"a tar":            {[]byte("busybox/\x00\x00\x00"), "phrase", "not what minictl cluster backup writes"},
		"another version":  {bytes.Replace(file, []byte("/v1"), []byte("/v2"), 1), "phrase", "not what minictl cluster backup writes"},
	} {
		got, err := unseal(bytes.NewReader(c.file), c.phrase)
		if err == nil || got != nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func FuzzUnseal(f *testing.F) {
	good := sealed(f, "phrase", "text")
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Fuzz(func(t *testing.T, file []byte) {
		if bytes.Contains(file, []byte("-> scrypt ")) && !bytes.Equal(file, good) {
			return // it may ask for minutes of work; age's own limit is tested there
		}
		if got, err := unseal(bytes.NewReader(file), "phrase"); err == nil && string(got) != "text" {
			t.Fatalf("%q out of what was not sealed", got)
		}
	})
}
