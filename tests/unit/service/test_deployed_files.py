"""The files that deploy it, as the programs that read them see them. Nothing is built."""

import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from tests.compose_file import ROOT

PROGRAMS = Path(sys.executable).parent
PROFILES = ("embedded", "cpu", "gpu")


def run(program: str, *arguments: str) -> tuple[int, str]:
    ended = subprocess.run(
        [str(PROGRAMS / program), *arguments], capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def spoiled(file: Path, old: str, new: str, folder: Path) -> Path:
    """A copy with one mistake."""
    text = file.read_text()
    assert old in text
    copy = folder / file.name
    copy.write_text(text.replace(old, new, 1))
    return copy


def test_the_dockerfile_is_as_hadolint_likes_it(tmp_path: Path) -> None:
    assert run("hadolint", str(ROOT / "Dockerfile")) == (0, "")
    wrong = spoiled(ROOT / "Dockerfile", "\nUSER ", "\nUSERS ", tmp_path)
    assert run("hadolint", str(wrong))[0] != 0


@pytest.mark.parametrize("profile", PROFILES)
def test_compose_reads_its_file(profile: str, tmp_path: Path) -> None:
    wrong = spoiled(ROOT / "docker-compose.yml", "    image:", "    imagine:", tmp_path)

    def read(file: Path) -> tuple[int, str]:
        return run(
            "docker-compose",
            *("--file", str(file), "--profile", profile),
            *("--project-directory", str(ROOT), "config", "--quiet"),
        )

    assert read(ROOT / "docker-compose.yml") == (0, "")
    assert "imagine" in read(wrong)[1]


def test_the_manifests_are_what_kubernetes_takes(tmp_path: Path) -> None:
    """Each against the schema of its kind; KEDA's scaler is no kind of Kubernetes's own."""

    def validate(file: Path) -> tuple[int, str]:
        options = ("--strict", "--quiet", "--no-warn")
        return run("python", "-m", "kubernetes_validate", *options, str(file))

    manifest = ROOT / "docs/deploy/kubernetes.yaml"
    assert validate(manifest) == (0, "")
    wrong = spoiled(manifest, "livenessProbe:", "livelinessProbe:", tmp_path)
    code, said = validate(wrong)
    assert code != 0
    assert "livelinessProbe" in said


def test_the_manifests_trust_the_word_of_few() -> None:
    documents = yaml.safe_load_all((ROOT / "docs/deploy/kubernetes.yaml").read_text())
    (told,) = (one["data"] for one in documents if one["kind"] == "ConfigMap")
    networks = [ip_network(one.strip()) for one in told["PPD_TRUSTED_PROXIES"].split(",")]
    assert sum(one.num_addresses for one in networks) <= 256
