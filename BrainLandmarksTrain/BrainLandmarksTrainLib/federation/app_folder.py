"""The Flower app of a federation: a folder with its settings and two files of one line each.

It is what Flower sends to the sites, and what a hospital reads before it joins.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from BrainLandmarksLib import __version__
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_writes
from BrainLandmarksTrainLib.config.federation import Federation

PACKAGE = "brainlandmarks_federation"

_PROJECT = """\
# The Flower app of a federation of BrainLandmarks, written by: brainlandmarks federate app
# Every site runs it. The settings under [tool.flwr.app.config] are all that it says.

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = {name}
version = {version}
description = "Landmark networks trained by several sites together"
license = "Apache-2.0"
dependencies = ["brainlandmarks"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "brainlandmarks"

[tool.flwr.app.components]
serverapp = "{package}.server:app"
clientapp = "{package}.client:app"

[tool.flwr.app.config]
{config}
"""

_CLIENT = '''\
"""What a site runs."""

from BrainLandmarksTrainLib.federation.client_app import client_app

app = client_app()
'''

_SERVER = '''\
"""What the server runs."""

from BrainLandmarksTrainLib.federation.server_app import server_app

app = server_app()
'''

_README = """\
# {name}

A Flower app that trains the landmark networks of the model {model} further, at several sites.
Its settings are in `pyproject.toml`; its code is that of brainlandmarks {version}.
"""


def write_app(federation: Federation, folder: Path) -> Path:
    """Write the app of a federation.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds something else, or cannot be written to.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / PACKAGE).is_dir():
        raise UserError(f"{folder} is not empty and holds no app; choose another folder.")
    name = app_name(str(federation.recipe["name"]))
    config = "\n".join(f"{k} = {_text(v)}" for k, v in federation.to_run_config().items())
    files = {
        "pyproject.toml": _PROJECT.format(
            name=json.dumps(name),
            version=json.dumps(release(__version__)),
            package=PACKAGE,
            config=config,
        ),
        "README.md": _README.format(name=name, model=federation.model, version=__version__),
    }
    code = {
        "__init__.py": '"""The app of a federation."""\n',
        "client.py": _CLIENT,
        "server.py": _SERVER,
    }
    for where, contents in ((folder, files), (folder / PACKAGE, code)):
        with atomic_writes(where) as unfinished:
            for file, content in contents.items():
                (unfinished / file).write_text(content, encoding="utf-8")
    return folder


def read_app(folder: Path) -> Federation:
    """The federation of an app's folder.

    Raises:
        UserError: there is no app of this program in it.
    """
    import tomli  # comes with Flower; Python has its own from 3.11 on

    try:
        values = tomli.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        config = values["tool"]["flwr"]["app"]["config"]
    except (OSError, KeyError, ValueError):
        raise UserError(
            f"{folder} holds no app; write one with brainlandmarks federate app."
        ) from None
    return Federation.of_run_config(config)


def app_name(name: str) -> str:
    """A model's name as the name of a Python project."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "federation"


def release(version: str) -> str:
    """A version in the numbers that Flower accepts, such as 1.2.0 for 1.2.0.dev3."""
    numbers = re.findall(r"\d+", version)[:3]
    return ".".join((numbers + ["0", "0", "0"])[:3])


def _text(value: str) -> str:
    """A text of several lines in TOML."""
    if "\n" not in value or "'''" in value:
        return json.dumps(value)
    return f"'''\n{value}'''"
