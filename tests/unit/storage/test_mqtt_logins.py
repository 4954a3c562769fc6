"""Files of the broker's logins, which mosquitto refuses if others own or can read them."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.profile import load_profile
from headrace.settings import Settings
from headrace.storage.mqtt_logins import provision_logins


def test_only_the_owner_of_the_folder_reads_the_files(tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None,
        state_dir=tmp_path,
        mqtt_login="password",
        mqtt_username="bridge",
        mqtt_password="secret",
        fleet_size=2,
    )
    settings.logins_dir.mkdir()
    owner = os.geteuid()
    if owner == 0:
        # `make up` gives the folder to the user that mosquitto runs as.
        owner = 1883
        os.chown(settings.logins_dir, owner, owner)
    for _ in ("made", "replaced"):
        provision_logins(settings, load_profile(settings.profile))
        files = {path.name: path.stat() for path in settings.logins_dir.iterdir()}
        assert set(files) == {"passwords", "rules", "fleet.json"}
        for name, file in files.items():
            assert file.st_mode & 0o777 == 0o600, name
            assert file.st_uid == owner, name
