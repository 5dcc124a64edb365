# Runs a program and stops one of its threads, or lets it go on, whenever standard input says so.
# Only a parent may trace its children wherever Yama restricts ptrace(2); so this one starts the program.

import ctypes
import os
import subprocess
import sys

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
ALSO_THREADS = 0x40000000  # __WALL of waitpid(2)

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) == -1:
        sys.exit(f'ptrace: {os.strerror(ctypes.get_errno())}')


def thread_of(pid, name):
    for thread in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{thread}/comm') as comm:
            if comm.read().strip() == name:
                return int(thread)
    sys.exit(f'no thread is called {name}')


program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
try:
    for order in sys.stdin:
        word, name = order.split()
        thread = thread_of(program.pid, name)
        if word == 'stop':
            ptrace(SEIZE, thread)
            ptrace(INTERRUPT, thread)
            os.waitpid(thread, ALSO_THREADS)
        else:
            ptrace(DETACH, thread)
finally:
    program.kill()
    program.wait()
