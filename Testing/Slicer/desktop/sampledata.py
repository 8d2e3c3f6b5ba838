"""The module SampleData as far as other modules meet it: sources are registered and can be run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import slicer


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tuple(value) -> tuple:
    return () if value is None else tuple(value) if isinstance(value, (list, tuple)) else (value,)


@dataclass
class SampleDataSource:
    """One sample: what it is called, where it lies, and how it is loaded."""

    sampleName: str | None = None
    uris: tuple = ()
    fileNames: tuple = ()
    nodeNames: tuple = ()
    customDownloader: Callable | None = None
    thumbnailFileName: str | None = None
    loadFileTypes: tuple = ()
    loadFileProperties: dict | None = None
    checksums: tuple = ()


class SampleDataLogic:
    """Runs the sources; `sources` holds all that were registered, by category."""

    sources: dict[str, list[SampleDataSource]] = {}  # noqa: RUF012

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFiles=None,
        loadFileProperties=None,
        checksums=None,
    ):
        source = SampleDataSource(
            sampleName,
            _tuple(uris),
            _tuple(fileNames),
            _tuple(nodeNames),
            customDownloader,
            thumbnailFileName,
            _tuple(loadFileTypes),
            dict(loadFileProperties or {}),
            _tuple(checksums),
        )
        SampleDataLogic.sources.setdefault(category, []).append(source)

    def sourceForSampleName(self, name):
        every = [source for group in self.sources.values() for source in group]
        return next((source for source in every if source.sampleName == name), None)

    def downloadFromSource(self, source):
        """Load a sample; only files of this machine can be fetched.

        As in Slicer a source's own downloader is for the button; scripts never reach it.
        """
        nodes = []
        for index, uri in enumerate(source.uris):
            path = Path(url2pathname(urlparse(uri).path))
            if urlparse(uri).scheme != "file":
                raise OSError(f"there is no network in a test: {uri}")
            checksum = source.checksums[index] if index < len(source.checksums) else None
            if checksum is not None and checksum != f"SHA256:{_digest(path)}":
                raise ValueError(f"{path} is another file than {checksum}")
            properties = dict(source.loadFileProperties)
            if index < len(source.nodeNames):
                properties["name"] = source.nodeNames[index]
            kind = source.loadFileTypes[index] if index < len(source.loadFileTypes) else None
            nodes.append(slicer.util.loadNodeFromFile(str(path), kind, properties))
        return nodes

    def downloadSample(self, name):
        return self.downloadFromSource(self.sourceForSampleName(name))[0]
