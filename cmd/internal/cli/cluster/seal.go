package cluster

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// scryptWork is the binary logarithm of scrypt's cost (age-encryption.org/v1): a second and 256 MB for each passphrase tried.
const scryptWork = 18

// seal encrypts what is written to the result, which must be closed, in the format of age with a passphrase: `age -d` opens
// it too, should there be no minictl any more.
func seal(w io.Writer, passphrase string, work int) (io.WriteCloser, error) {
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	r.SetWorkFactor(work)
	return age.Encrypt(w, r)
}

// unseal is the inverse. Nothing that it gives out may be used before it has given all: the last piece tells whether the
// file is whole.
func unseal(r io.Reader, passphrase string) ([]byte, error) {
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, err
	}
	plain, err := age.Decrypt(r, id)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, errors.New("the passphrase is wrong")
	case err != nil:
		return nil, fmt.Errorf("this is not what minictl cluster backup writes, or not all of it: %w", err)
	}
	b, err := io.ReadAll(plain)
	if err != nil {
		return nil, fmt.Errorf("the file is damaged, or cut off: %w", err)
	}
	return b, nil
}
