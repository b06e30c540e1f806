"""One run in a folder at a time."""

import errno
import fcntl
import os
import socket
from pathlib import Path

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # of file systems that have none
_HELD: dict[Path, int] = {}  # descriptors of this process, open until it ends


def lock(workdir: Path) -> None:
    """Keeps other processes out of a folder for as long as this one lives: however it ends, nothing is left behind.

    Raises:
      ValueError: another process has it; it says which.
    """
    file = (workdir / "lock").resolve()
    if file in _HELD:
        return
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            print(
                f"warning: {file} cannot be locked here ({error.strerror}): start no second run in {workdir}",
                flush=True,
            )
            _HELD[file] = descriptor
            return
        if not isinstance(error, BlockingIOError):
            raise
        holder = os.read(descriptor, 1000).decode(errors="replace").strip() or "not said which"
        os.close(descriptor)
        raise ValueError(
            f"workdir {workdir} is in use by another run ({holder}). Wait for its end, or give this one a folder of "
            "its own with --workdir."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _HELD[file] = descriptor
