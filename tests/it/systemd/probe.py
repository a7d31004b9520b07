"""Tries what the daemon must not be able to do, and prints what came of it: one line a trial, `ok` or the error's name."""

import ctypes
import errno
import mmap
import os
import resource
import socket

LIBC = ctypes.CDLL(None, use_errno=True)
OWN = "/var/lib/posthaste"

# Of x86-64 and aarch64: system calls without a function of Python.
PERSONALITY_NO_RANDOM_ADDRESSES = 0x0040000
CLONE_NEWUSER = 0x10000000
PTRACE_TRACEME = 0
SYSLOG_ACTION_SIZE_BUFFER = 10


def call(name, *arguments):
    """A function of the C library, which returns -1 to say that it failed."""
    if getattr(LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def mkdir(directory):
    os.mkdir(directory + "/probe")
    os.rmdir(directory + "/probe")


def bind_port_25():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 25))


def set_user_id():
    path = OWN + "/file"
    with open(path, "w", encoding="ascii"):
        pass
    os.chmod(path, 0o4755)


def realtime():
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def attempt(name, trial, *arguments):
    try:
        trial(*arguments)
        outcome = "ok"
    except OSError as error:
        outcome = errno.errorcode.get(error.errno, str(error))
    print(f"{name}: {outcome}", flush=True)


def main():
    for directory in ["/etc", "/usr/local", "/var/spool", "/sys/fs/cgroup", OWN, "/var/log/posthaste", "/run/posthaste"]:
        attempt("mkdir " + directory, mkdir, directory)
    attempt("list /home", os.listdir, "/home")
    for path in ["/tmp/outside", "/var/tmp/outside", "/dev/outside", "/proc/1", "/proc/meminfo"]:
        attempt("find " + path, os.stat, path)
    attempt("open a device", os.open, OWN + "/kmsg", os.O_WRONLY)
    for family in ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET"]:
        attempt("socket " + family, socket.socket, getattr(socket, family), socket.SOCK_DGRAM)
    attempt("bind to port 25", bind_port_25)
    attempt("set-user-id", set_user_id)
    attempt("own to own", os.chown, OWN + "/file", os.getuid(), os.getgid())
    attempt("writable code", mmap.mmap, -1, 4096, mmap.MAP_PRIVATE, mmap.PROT_WRITE | mmap.PROT_EXEC)
    attempt("personality", call, "personality", PERSONALITY_NO_RANDOM_ADDRESSES)
    attempt("user namespace", call, "unshare", CLONE_NEWUSER)
    attempt("host name", socket.sethostname, "probe")
    attempt("clock", call, "settimeofday", ctypes.byref((ctypes.c_long * 2)(1, 0)), None)
    attempt("realtime", realtime)
    attempt("mount", call, "mount", b"none", b"/tmp", b"tmpfs", 0, None)
    attempt("trace", call, "ptrace", PTRACE_TRACEME, 0, None, None)
    attempt("kernel log", call, "klogctl", SYSLOG_ACTION_SIZE_BUFFER, None, 0)
    attempt("module", call, "delete_module", b"nothing", 0)
    umask = os.umask(0)
    print(f"umask: {umask:03o}")
    print("files:", resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    print("core:", resource.getrlimit(resource.RLIMIT_CORE)[1])
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.strip("\n").split(":\t", 1) for line in status)
    for field in ["CapEff", "CapBnd", "NoNewPrivs"]:
        print(f"{field}: {fields[field]}")


main()
