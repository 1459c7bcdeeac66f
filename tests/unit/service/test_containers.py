"""What `make containers` needs before an engine is there; the rest is tried by itself."""

import urllib.request
from pathlib import Path

import pytest

from tests.containers import host, stand_ins
from tests.containers.s3_gateway import Objects, StoredAt


def test_a_machine_that_cannot_do_it_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(host.UnfitError, match="Linux and root"):
        host.look(None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(host, "NEEDED", {"no-such-program": "its-package", "sh": "dash"})
    with pytest.raises(host.UnfitError, match=r"apt-get install .* its-package$"):
        host.look(None)
    monkeypatch.setattr(host, "NEEDED", {})
    monkeypatch.setattr(host, "OTHER_ENGINES", (tmp_path,))
    with pytest.raises(host.UnfitError, match="another engine runs here"):
        host.look(None)
    monkeypatch.setattr(host, "OTHER_ENGINES", ())
    with pytest.raises(host.UnfitError, match=r"no torch-\*\.whl in"):
        host.look(tmp_path)


def test_a_folder_of_wheels_is_an_index_for_as_long_as_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stand_ins, "INDEX_PORT", 0)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "torch-2.13.0-cp311.whl").write_bytes(b"wheel")
    machine = host.Host("dockerd", "docker", None, wheels, [])
    with stand_ins.torch_index(machine, tmp_path) as index:
        with urllib.request.urlopen(f"{index}/cpu/torch/") as page:
            assert "torch-2.13.0-cp311.whl" in page.read().decode()
        with urllib.request.urlopen(f"{index}/cpu/torch/torch-2.13.0-cp311.whl") as wheel:
            assert wheel.read() == b"wheel"


def test_objects_of_the_gateway_outlive_it(tmp_path: Path) -> None:
    Objects(tmp_path)["test/a b.png"] = b"one"
    again = Objects(tmp_path)
    assert (list(again), again["test/a b.png"]) == (["test/a b.png"], b"one")
    assert StoredAt(tmp_path)["test/a b.png"].tzinfo is not None
    again["test/a b.png"] = b"two"
    assert again.pop("test/a b.png") == b"two"
    assert again.get("test/a b.png") is None
    assert list(tmp_path.iterdir()) == []
