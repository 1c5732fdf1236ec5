package daemon

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// foreign is an architecture besides the processor's first, which a kernel may run programs of, and code that ends such a
// program.
type foreign struct {
	arch specs.Arch
	kind elf.Machine
	exit []byte
}

// notRun are the architectures whose programs this kernel refuses, though processors like this one know them. The kernel
// itself is asked, by a program of each.
func notRun() []specs.Arch {
	if runtime.GOARCH != "amd64" {
		return nil
	}
	var out []specs.Arch
	for _, f := range []foreign{
		// xor edi, edi; mov eax, X32_SYSCALL_BIT+60 (exit); syscall
		{specs.ArchX32, elf.EM_X86_64, []byte{0x31, 0xff, 0xb8, 60, 0, 0, 0x40, 0x0f, 0x05}},
		// xor ebx, ebx; mov eax, 1 (exit); int 0x80
		{specs.ArchX86, elf.EM_386, []byte{0x31, 0xdb, 0xb8, 1, 0, 0, 0, 0xcd, 0x80}},
	} {
		if errors.Is(runOnce(f.program()), unix.ENOEXEC) {
			out = append(out, f.arch)
		}
	}
	return out
}

// program is the smallest that the kernel loads (elf(5)): the two headers and the code, in one segment.
func (f foreign) program() []byte {
	const base, headers = 0x400000, 52 + 32
	size := uint32(headers + len(f.exit))
	h := elf.Header32{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS32), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(f.kind), Version: uint32(elf.EV_CURRENT),
		Entry: base + headers, Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 1,
	}
	p := elf.Prog32{
		Type: uint32(elf.PT_LOAD), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Flags: uint32(elf.PF_R | elf.PF_X), Align: 0x1000,
	}
	var out bytes.Buffer
	for _, part := range []any{h, p, f.exit} {
		_ = binary.Write(&out, binary.LittleEndian, part) // a Buffer takes all, and the types have fixed sizes
	}
	return out.Bytes()
}

// runOnce runs a program that is nowhere on a disk.
func runOnce(program []byte) error {
	fd, err := unix.MemfdCreate("program", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "program")
	defer f.Close()
	if _, err := f.Write(program); err != nil {
		return err
	}
	return exec.Command(fmt.Sprintf("/proc/self/fd/%d", fd)).Run()
}
