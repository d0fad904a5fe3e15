"""Lets programs in a container believe that they changed a file's owner, or became another user.

Our containers have one user, who is root inside, and the app's user (or the build's) outside. Installers (apt, dpkg,
useradd, `COPY --chown`) and servers that start as root (nginx) change owners and users all the same, and end if that
fails. With this filter (seccomp(2)) these calls do nothing and report success. A program gains no right by that; the
rights that it believes it gave up, it never had. The filter holds for this process and all that it starts. Standard
library only.
"""

from __future__ import annotations

import os
import struct

# chown(2), setuid(2), setgid(2), setgroups(2) and related calls, by their system call numbers (asm/unistd.h).
CALLS = {
    "x86_64": (92, 93, 94, 105, 106, 113, 114, 116, 117, 119, 122, 123, 260),
    "aarch64": (54, 55, 143, 144, 145, 146, 147, 149, 151, 152, 159),
}
# The architectures of these numbers (AUDIT_ARCH_…, linux/audit.h): a 32-bit program uses them for other calls.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
ALLOW, DONE = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with 0, which is success


def one_user() -> None:
    """From now on no call changes an owner or a user, and each reports success. No effect on other architectures."""
    import ctypes

    machine = os.uname().machine
    calls = CALLS.get(machine)
    if not calls:
        return
    # struct seccomp_data begins with the call's number; the second field is the architecture.
    program = struct.pack("=HBBI", LOAD, 0, 0, 4)
    program += struct.pack("=HBBI", JUMP_IF_EQUAL, 1, 0, ARCHITECTURES[machine])
    program += struct.pack("=HBBI", RETURN, 0, 0, ALLOW)
    program += struct.pack("=HBBI", LOAD, 0, 0, 0)
    for at, number in enumerate(calls):
        program += struct.pack("=HBBI", JUMP_IF_EQUAL, len(calls) - at, 0, number)
    program += struct.pack("=HBBI", RETURN, 0, 0, ALLOW) + struct.pack("=HBBI", RETURN, 0, 0, DONE)
    code = ctypes.create_string_buffer(program, len(program))
    whole = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(whole), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")
