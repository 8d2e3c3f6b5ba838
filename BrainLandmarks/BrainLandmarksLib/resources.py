"""Where the files that come with the library lie: protocols, models and the sample head.

They are found through `importlib.resources`, so a pip install, a source checkout and a Slicer
extension need no setting.

>>> from BrainLandmarksLib import resources
>>> resources.sample_head().name
'ch2.nii.gz'
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from BrainLandmarksLib.errors import UserError

SAMPLE_PREFIX = "sample:"
_SAMPLES = {"colin27": "ch2.nii.gz"}
_SHA256 = {"colin27": "a009051127f64dc3dd554d5f5b589870ea72106d9642c21b4e7093e478cfc309"}


def folder(name: str) -> Path:
    """Return the folder `name` ("protocols", "models" or "sample") of the installed library."""
    # Both supported installs unpack the package to disk, so the traversable is a real path.
    return Path(str(resources.files("BrainLandmarksLib"))) / "data" / name


def protocol_names() -> list[str]:
    """Return the names of the shipped landmark protocols, sorted."""
    return sorted(
        path.stem
        for path in folder("protocols").glob("*.json")
        if not path.name.endswith(".schema.json")
    )


def protocol_file(name: str) -> Path:
    """Return the file of the shipped protocol `name`; it may not exist."""
    return folder("protocols") / f"{name}.json"


def protocol_schema() -> Path:
    """Return the JSON schema that every protocol file satisfies."""
    return folder("protocols") / "protocol.schema.json"


def raters_file(protocol: str) -> Path:
    """Return the file with the distances of raters of a protocol; it may not exist."""
    return folder("raters") / f"{protocol}.json"


def structures_file() -> Path:
    """Return the file with the names and colours of the structures of a parcellation."""
    return folder("structures.json")


def model_names() -> list[str]:
    """Return the names of the shipped models (folders that hold a model.json), sorted."""
    return sorted(path.parent.name for path in folder("models").glob("*/model.json"))


def model_folder(name: str) -> Path:
    """Return the folder of the shipped model `name`; it may not exist."""
    return folder("models") / name


def sample_head(name: str = "colin27") -> Path:
    """Return the NIfTI file of a sample head that comes with the library.

    "colin27" is a T1-weighted whole head, 1 mm, 181 x 217 x 181 voxels: the mean of 27 scans of
    one person (Holmes et al., J Comput Assist Tomogr 22:324-333, 1998).

    Raises:
        UserError: there is no sample of this name.
    """
    if name not in _SAMPLES:
        raise UserError(
            f"there is no sample head called {name!r}; the library has {', '.join(_SAMPLES)}."
        )
    return folder("sample") / _SAMPLES[name]


def sample_sha256(name: str = "colin27") -> str:
    """Return the SHA-256 of a sample head's file, by which a stale copy of it is known."""
    return _SHA256[name]


def sample_landmarks(protocol: str, name: str = "colin27") -> Path:
    """Return the file with the landmarks of a sample head, placed by eye; it may not exist.

    Its points follow the rules of the protocol, on enlarged slices; they are what the annotation
    guide shows.

    Raises:
        UserError: there is no sample of this name.
    """
    image = sample_head(name)
    return image.with_name(f"{image.name.removesuffix('.nii.gz')}_{protocol}.mrk.json")


def image_path(argument: str) -> Path:
    """Turn an image argument of the command line into a path: "sample:colin27" names a sample.

    Raises:
        UserError: the argument starts with "sample:" and there is no such sample.
    """
    if argument.startswith(SAMPLE_PREFIX):
        return sample_head(argument[len(SAMPLE_PREFIX) :])
    return Path(argument)


def landmarks_path(argument: str, protocol: str) -> Path:
    """Turn a landmark file's argument into a path: "sample:colin27" names those of a sample.

    Raises:
        UserError: there is no such sample, or none of its landmarks are of this protocol.
    """
    if not argument.startswith(SAMPLE_PREFIX):
        return Path(argument)
    path = sample_landmarks(protocol, argument[len(SAMPLE_PREFIX) :])
    if not path.is_file():
        raise UserError(f"{argument} has no landmarks of the protocol {protocol}; name a file.")
    return path
