"""An API replica has no torch: nothing that it imports asks for it, or for what rests on it."""

import pkgutil
import subprocess
import sys

import service.api
import service.core
import service.infra

_BLOCKED = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "diffusers", "transformers", "tokenizers"):
            raise ModuleNotFoundError(f"{name} is not installed here")

sys.meta_path.insert(0, Absent())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_everything_that_an_api_replica_imports_does_without_torch() -> None:
    names = ["service.wiring", "service.cli", "service.cli.doctor", "service.settings"]
    for package in (service.api, service.infra, service.core):
        found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        names += [module.name for module in found]
    assert len(names) > 40
    subprocess.run([sys.executable, "-c", _BLOCKED, *names], check=True)


def test_the_block_of_that_test_blocks() -> None:
    command = [sys.executable, "-c", _BLOCKED, "ppd_model.pipeline"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "is not installed here" in failed.stderr
