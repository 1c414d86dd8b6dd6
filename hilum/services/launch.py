"""Become a program that cannot outlive the one that started it. Run as a script, by file name, never imported.

    python -I -S launch.py PARENT_PID DEATH_SIGNAL USER PROGRAM ARGUMENT...

Linux forgets the death signal when the user changes, and a process that is forked from one with threads may not run Python
code safely before `exec`; so this is a program of its own between the two. `USER` is empty for "as we are".
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522


class CapabilityHeader(ctypes.Structure):
    """`struct __user_cap_header_struct` of capset(2)."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class CapabilitySet(ctypes.Structure):
    """`struct __user_cap_data_struct` of capset(2)."""

    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def become(user: str) -> None:
    """Give up root for `user`, keeping one right: to pass through and read folders closed to others, such as /root.

    Without it a server could not reach its own program or data below such a folder. It is no right to write.
    Where the system withholds it, the program simply starts without.
    """
    import pwd

    entry = pwd.getpwnam(user)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    right = CapabilitySet(*(1 << CAP_DAC_READ_SEARCH,) * 3)
    header = CapabilityHeader(CAPABILITY_VERSION_3, 0)
    if libc.capset(ctypes.byref(header), (CapabilitySet * 2)(right, CapabilitySet())) == 0:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0, 0)
    else:
        libc.capset(ctypes.byref(header), (CapabilitySet * 2)())


def main() -> None:
    """Do as the module's docstring says; does not return."""
    parent, death_signal, user, *argv = sys.argv[1:]
    if user:
        become(user)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):  # it ended before we could ask to be told
            sys.exit(1)
    os.umask(0o077)
    try:
        os.execv(argv[0], argv)  # noqa: S606 - becoming another program is this one's purpose
    except OSError as error:
        sys.exit(f"{argv[0]} cannot be started: {error.strerror}.")


if __name__ == "__main__":
    main()
