"""Where pictures lie, and for how long: refused early, shown without secrets."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.infra.pictures.folder_store import FolderImageStore
from service.settings import Settings
from service.wiring import image_store


@pytest.mark.parametrize(
    "given",
    [
        {"images_url": "s3://"},
        {"images_url": "s3://key:secret@bucket"},
        {"images_url": "https://bucket.example/"},
        {"images_url": "s3://bucket/../other"},
        {"s3_endpoint": "minio:9000"},
        {"s3_endpoint": "http://key:secret@minio:9000"},
        {"s3_access_key_id": "a"},
        {"s3_secret_access_key": "b"},
        {"retain_pictures_days": 0},
        {"retain_jobs_days": 2},
        {"retain_inactive_users_days": -1},
        {"s3_timeout_s": 0},
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_without_its_secret(
    given: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match="validation error") as raised:
        Settings(**given)
    assert "secret@" not in str(raised.value)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://my.bucket-1/a/b_c"])
def test_a_bucket_and_a_prefix_are_taken(url: str) -> None:
    settings = Settings(images_url=url, s3_access_key_id="id", s3_secret_access_key="key-of-ours")
    assert settings.s3_config() == {"access_key_id": "id", "secret_access_key": "key-of-ours"}
    assert "key-of-ours" not in str(settings.redacted()) + repr(settings)
    assert not isinstance(image_store(settings), FolderImageStore)


def test_without_a_bucket_pictures_are_files(tmp_path: Path) -> None:
    assert isinstance(image_store(Settings(data_dir=tmp_path)), FolderImageStore)


def test_the_embedded_default_needs_no_obstore() -> None:
    code = "import sys; sys.modules['obstore'] = None; import service.cli"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
