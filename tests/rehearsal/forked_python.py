"""`python -m`, `accelerate launch -m` and `ppd` without the seconds that importing torch takes.

One process imports what every job imports and forks for each command; in the rehearsal's PATH,
`python`, `accelerate` and `ppd` are scripts that send it their arguments, environment, folder and
open files, and end with its status. The child is what a fresh interpreter would be after its
imports. Without a GPU `accelerate launch` starts one process, as here.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path

SHIM = """#!{python} -IS
import array, json, os, socket, sys
arguments = sys.argv[1:]
name = os.path.basename(sys.argv[0])
module = arguments[1:] if name == "python" and arguments[:1] == ["-m"] else None
if name == "accelerate" and arguments[:2] == ["launch", "-m"]:
    module = arguments[2:]
if name == "ppd":
    module = ["service.cli", *arguments]
if module is None or not module[0].startswith(("training.", "service.")):
    os.execv({real!r} + "/" + name, [name, *arguments])
asked = json.dumps([module, dict(os.environ), os.getcwd()]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    files = array.array("i", [0, 1, 2])
    server.sendmsg([len(asked).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    server.sendall(asked)
    sys.exit(int(server.makefile().read() or 1))
"""


def write_shims(folder: Path, address: Path) -> None:
    """The scripts in `folder`; whatever else they are asked goes to the real programs."""
    folder.mkdir(parents=True, exist_ok=True)
    real = str(Path(sys.executable).parent)
    for name in ("python", "accelerate", "ppd"):
        text = SHIM.format(python=sys.executable, real=real, address=str(address))
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def serve(address: Path) -> None:
    """Fork for every command that comes, until the process that started this one is gone."""
    import training.precompute.__main__
    import training.synthetic_users.__main__
    import training.train_dpo
    import training.win_rates.__main__  # noqa: F401

    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen()
        listening.settimeout(1)
        while os.getppid() == parent:
            try:
                asking, _ = listening.accept()
            except TimeoutError:
                continue
            head, passed, _, _ = socket.recv_fds(asking, 8, 3)
            length = int.from_bytes(head, "big")
            asked = b""
            while len(asked) < length:
                asked += asking.recv(length - len(asked))
            child = os.fork()
            if child == 0:
                listening.close()
                _become(*json.loads(asked), passed)
            for file in passed:
                os.close(file)
            threading.Thread(target=_answer, args=(child, asking), daemon=True).start()


def _become(
    module: list[str], environment: dict[str, str], folder: str, files: array.array[int]
) -> None:
    """Run the module as a fresh interpreter would, and end."""
    status = 1
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = module
        for name in (module[0], f"{module[0]}.__main__"):
            sys.modules.pop(name, None)
        runpy.run_module(module[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # as an interpreter does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _answer(child: int, asking: socket.socket) -> None:
    """Tell the script how its child ended; where the script itself was ended, so is the child."""
    with asking:
        done = 0
        while not done:
            done, ended = os.waitpid(child, os.WNOHANG)
            if not done and select.select([asking], [], [], 0.05)[0]:
                os.kill(child, signal.SIGTERM)
                done, ended = os.waitpid(child, 0)
        with contextlib.suppress(OSError):
            asking.sendall(str(os.waitstatus_to_exitcode(ended) % 256).encode())


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
