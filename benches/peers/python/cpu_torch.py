"""Cuts the CUDA half out of an installed torch wheel.

On Linux the torch wheel links gigabytes of CUDA libraries that no processor ever
uses. This puts one small library in their place: it defines the symbols that torch's
Python binding asks them for, and calling any of them aborts. The processor half of
torch stays byte for byte as it was.

Usage: python cpu_torch.py SITE_PACKAGES
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

STAND_IN = "libtorch_cuda.so"
ABSENT = ["libcudnn.so.9", "libcufile.so.0", "libnccl.so.2"]
LOADED = ["libtorch_python.so", "libtorch.so", "libshm.so", "libtorch_cpu.so", "libc10.so",
          "libc10_cuda.so"]
DISTRIBUTED = re.compile(r'hasattr\(torch\._C, "_(c10d|rpc|dist_autograd)_init"\)')
TYPE_INFO = "_ZTI"
CLASS_TYPE = "_ZTVN10__cxxabiv117__class_type_infoE"
REFUSE = "call abort@PLT"
# Called while torch is loaded: it returns a reference to a place where a checker is stored.
CALLED = {"_ZN4c10d15get_gil_checkerEv": "lea place(%rip), %rax; ret"}
REMOVED = ["libtorch_cuda_linalg.so", "libtorch_nvshmem.so"]


def symbols(library, *options):
    """The dynamic symbols of `library`: name to (type letter, size in bytes)."""
    command = ["nm", "-D", "-P", "--without-symbol-versions", *options, str(library)]
    found = {}
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        name, kind, *place = line.split()
        found[name] = (kind, int(place[1], 16) if len(place) > 1 else 0)
    return found


def missing(lib):
    """What the libraries that torch loads want from those that will not be there."""
    wanted, present = set(), set()
    for name in LOADED:
        undefined = symbols(lib / name, "--undefined-only")
        wanted.update(symbol for symbol, (kind, _) in undefined.items() if kind == "U")
        present.update(symbols(lib / name, "--defined-only"))
    cuda = {}
    for library in [*REMOVED, STAND_IN]:
        cuda.update(symbols(lib / library, "--defined-only"))
    others = ("nccl", "cudnn", "cuFile")
    names = sorted(name for name in wanted - present if name in cuda or name.startswith(others))
    return {name: cuda.get(name, ("T", 0)) for name in names}


def assembly(wanted):
    """Functions abort, type descriptions carry their name, other data is zero."""
    lines = ['.section .note.GNU-stack,"",@progbits', ".bss", "place: .zero 64"]
    for name, (kind, size) in wanted.items():
        lines.append(f".globl {name}")
        if kind in "TWi":
            lines += [".text", f".type {name},@function", f"{name}: {CALLED.get(name, REFUSE)}"]
        elif name.startswith(TYPE_INFO):
            text = name.removeprefix(TYPE_INFO)
            lines += [".data", ".balign 8", f".type {name},@object", f".size {name},16"]
            lines += [f"{name}: .quad {CLASS_TYPE}+16, 1f", f'1: .asciz "{text}"']
        else:
            room = max(size, 8)
            lines += [".bss", ".balign 16", f".type {name},@object", f".size {name},{room}"]
            lines.append(f"{name}: .zero {room}")
    return "\n".join(lines) + "\n"


def replace_library(lib, wanted):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "stand_in.s"
        source.write_text(assembly(wanted))
        built = Path(folder) / STAND_IN
        subprocess.run(["cc", "-shared", f"-Wl,-soname,{STAND_IN}", "-o", built, source], check=True)
        for name in [*REMOVED, STAND_IN]:
            (lib / name).unlink()
        shutil.copy(built, lib / STAND_IN)
    for name in ABSENT:
        (lib / name).symlink_to(STAND_IN)


def without_distributed(torch):
    """As in builds of torch that lack it: its set-up would construct objects of NCCL."""
    for path in [torch / "__init__.py", *(torch / "distributed").rglob("__init__.py")]:
        text = path.read_text()
        path.write_text(DISTRIBUTED.sub("False", text))


def main():
    torch = Path(sys.argv[1]) / "torch"
    lib = torch / "lib"
    if not all((lib / name).exists() for name in [*REMOVED, STAND_IN]):
        return  # A wheel for processors only, or one that was cut before.
    wanted = missing(lib)
    replace_library(lib, wanted)
    without_distributed(torch)
    print(f"one small library stands in for CUDA: {len(wanted)} symbols", file=sys.stderr)


if __name__ == "__main__":
    main()
