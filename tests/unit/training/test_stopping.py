"""Jobs that are stopped, and disks that are full, leave whole files alone."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ppd_model.files.artifact import ArtifactSpec, save_artifact
from training.data.shards import ShardFolder
from training.jobs.files import replacing
from training.jobs.stopping import end, ended_cleanly, watched


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Within it writing more fails as on a full disk."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_job_ends_with_the_shells_status_and_its_clean_up(
    sent: signal.Signals, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with ended_cleanly("--resume goes on"), replacing(path) as unfinished:
            unfinished.write_text("half of the ne")
            os.kill(os.getpid(), sent)

    with pytest.raises(SystemExit) as ended:
        write()
    assert ended.value.code == status
    assert f"stopped by {sent.name}: --resume goes on" in capsys.readouterr().out
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_job_that_looks_ends_where_it_likes_and_at_the_second_signal_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with watched() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGINT)
        assert ended.value.code == 130
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(SystemExit):
        end(signal.SIGTERM, "kept")


def test_on_a_full_disk_shards_and_artifacts_are_whole_or_not_there(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path / "shards", {}, resume=False)
    large = torch.zeros(100_000)
    with files_of_at_most(10_000), pytest.raises(OSError, match="could not be written"):
        folder.write("rows-00000.safetensors", {"x": large})
    with files_of_at_most(10_000), pytest.raises(OSError, match="could not be written"):
        save_artifact(tmp_path / "a.safetensors", {"x": large}, ArtifactSpec("k", {}, "b"))
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["manifest.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]
    folder.write("rows-00000.safetensors", {"x": large})
    assert folder.has("rows-00000.safetensors")
