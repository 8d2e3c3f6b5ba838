"""Label schemes: what they say, how one is recognised, and a head written in each of them."""

from __future__ import annotations

import functools
import json

import nibabel
import numpy as np
import pytest
from phantom import coarse_phantom_head

from BrainLandmarksLib.annotation import annotate, detect_scheme, load_scheme, scheme_names
from BrainLandmarksLib.annotation.labelmap import LabelMap
from BrainLandmarksLib.annotation.schemes import MIDLINE, PAIRED, numbers
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol import load_protocol

PROTOCOL = load_protocol("brain88")
TOLD = {
    "freesurfer": {2: 2, 77: 2, 1035: 3, 2001: 42, 12175: 42, 3014: 2, 5002: 41, 63: 43, 31: 4,
                   16: 16, 174: 174, 173: 16, 253: 251, 17: 17, 53: 53, 506: 506, 515: 0, 85: 85},
    "gif": {12: 174, 13: 16, 53: 251, 23: 53, 24: 17, 57: 2, 50: 41, 159: 3, 158: 42, 6: 15, 22: 14,
            27: 43, 26: 5, 61: 2, 4: 24, 1: 0, 8: 58},
    "niftyseg": {35: 174, 36: 16, 87: 251, 48: 53, 49: 17, 92: 2, 84: 41, 208: 3, 207: 42, 12: 15,
                 52: 43, 51: 5, 97: 2, 31: 26, 24: 58},
    "dlmuse": {35: 16, 95: 251, 47: 53, 48: 17, 82: 2, 81: 41, 207: 3, 206: 42, 11: 15, 51: 43,
               50: 5, 30: 26, 23: 58, 75: 3, 76: 42, 46: 24, 90: 2},
}  # fmt: skip
"""Scheme -> some of its numbers and the library's for the same structure."""


@pytest.mark.parametrize("name", sorted(TOLD))
def test_a_scheme_says_what_its_numbers_are(name):
    labels = np.array([[[*TOLD[name]]]])
    assert load_scheme(name).canonical(labels).ravel().tolist() == [*TOLD[name].values()]
    assert load_scheme(name).unknown(labels) == ()


@pytest.mark.parametrize("name", scheme_names())
def test_every_shipped_scheme_has_both_sides_of_every_pair(name):
    scheme = load_scheme(name)
    assert scheme.title
    targets = set(scheme.table.tolist())
    assert {number for pair in PAIRED.values() for number in pair} <= targets
    assert {MIDLINE["corpus callosum"], MIDLINE["fourth ventricle"]} <= targets


def test_aliases_name_the_same_scheme():
    for alias in ("aseg", "aparc+aseg", "SynthSeg", "FastSurfer"):
        assert load_scheme(alias).name == "freesurfer"
    assert load_scheme("MUSE").name == "dlmuse"


def test_unknown_numbers_are_background_and_collected():
    scheme = load_scheme("gif")
    labels = np.array([[[53, 160, 7000, -4, 0]]])
    assert scheme.canonical(labels).ravel().tolist() == [251, 0, 0, 0, 0]
    assert scheme.unknown(labels) == (-4, 160, 7000)


def test_a_number_without_side_goes_to_the_nearer_half():
    labels = np.zeros((11, 3, 3), int)
    labels[:3], labels[-3:] = 2, 41
    labels[4], labels[6] = 77, 77
    labels[5, 0, 0] = 172  # vermis, and no cerebellum to decide
    assert load_scheme("freesurfer").canonical(labels)[[4, 6, 5], 0, 0].tolist() == [2, 41, 0]
    labels[4, 0, 0] = 77
    # Voxels are 1 mm along x and 9 along z, so what counts is the distance in millimetres.
    labels = np.zeros((7, 1, 3), int)
    labels[1, 0, 0], labels[6, 0, 2], labels[1, 0, 2] = 41, 2, 77
    assert load_scheme("freesurfer").canonical(labels, np.array([1.0, 1, 9]))[1, 0, 2] == 2


@functools.cache
def in_numbers_of(name):
    """The phantom written in another scheme; blocks of a structure take its numbers in turn."""
    scheme, head = load_scheme(name), coarse_phantom_head()
    labels = head.data.astype(int)
    block = sum(axis // 6 for axis in np.indices(labels.shape))
    data = np.zeros_like(head.data)
    for target in {int(n) for n in np.unique(labels)} - {0}:
        candidates = np.flatnonzero(scheme.table == target)
        if len(candidates):
            inside = labels == target
            data[inside] = candidates[block[inside] % len(candidates)]
    return Volume(data, head.grid)


@pytest.mark.parametrize("name", ["gif", "niftyseg", "dlmuse"])
def test_a_head_has_the_same_landmarks_in_every_scheme(name):
    head = LabelMap(in_numbers_of(name))
    assert head.scheme.name == name
    plain = LabelMap(coarse_phantom_head())
    assert plain.scheme.name == "freesurfer"
    for structure in ("hippocampus", "cerebral cortex", "thalamus"):
        for number in PAIRED[structure]:
            assert np.array_equal(head.mask((number,)), plain.mask((number,)))


def test_annotating_takes_the_scheme_of_the_map():
    head = coarse_phantom_head()
    head.data[np.isin(head.data, (506, 512))] = 0  # GIF has neither eyes nor a spinal cord
    plain, translated = annotate(head, "freesurfer"), annotate(in_numbers_of("gif"))
    assert np.array_equal(plain.missing, translated.missing)
    assert translated.missing.sum() < 12
    assert np.allclose(plain.points, translated.points, atol=0.01, equal_nan=True)


@pytest.mark.parametrize("name", scheme_names())
def test_a_damaged_map_is_recognised_still(name):
    volume = coarse_phantom_head() if name == "freesurfer" else in_numbers_of(name)
    data = volume.data.astype(int)
    for part in (data[: len(data) // 2], data[:, :35], data[:, :, 35:]):
        assert detect_scheme(part).name == name
    for gone in list(numbers(data))[1::2]:
        assert detect_scheme(np.where(data == gone, 0, data)).name == name


def test_numbers_of_no_scheme_are_refused():
    with pytest.raises(UserError, match="none of the known schemes"):
        detect_scheme(np.full((4, 4, 4), 9000))


WRONG = [
    ("{", "not valid JSON"),
    ("[]", 'no list "structures"'),
    ({"structures": []}, "names no structure"),
    ({"structures": [{"structure": "hippocamus", "labels": [1]}]}, "did you mean 'hippocampus'"),
    ({"structures": [{"structure": "hippocampus", "side": "left", "labels": [1]}]}, "the side of"),
    ({"structures": [{"structure": "pons", "side": "L", "labels": [1]}]}, "pons has no sides"),
    ({"structures": [{"structure": "pons"}]}, 'has no list "labels"'),
    ({"structures": [{"structure": "pons", "labels": ["1"]}]}, "neither a whole number"),
    ({"structures": [{"structure": "pons", "labels": [[5, 1]]}]}, "neither a whole number"),
    ({"structures": [{"structure": "pons", "labels": [[1, 2, 0]]}]}, "neither a whole number"),
    ({"structures": [{"structure": "pons", "labels": [[1, 2, 3, 4]]}]}, "neither a whole number"),
    ({"structures": [{"structure": "pons", "labels": [True]}]}, "neither a whole number"),
    ({"structures": [{"structure": "pons", "labels": [-1]}]}, "neither a whole number"),
    ({"structures": [{"structure": "pons", "labels": [[1, 1e9]]}]}, "neither a whole number"),
    ({"structures": [{"structure": "pons", "labels": [7]}, {"structure": "eye", "labels": [7]}]},
     "the number 7 is given to pons and eye"),
    ({"structures": ["pons"]}, "entry 1"),
    ({"structures": [{"structure": ["pons"], "labels": [1]}]}, "unknown structure"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), WRONG)
def test_a_wrong_file_gives_one_sentence(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        load_scheme(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_names_and_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="did you mean freesurfer"):
        load_scheme("freesufer")
    with pytest.raises(UserError, match=r"cannot be read: No such file"):
        load_scheme(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not valid JSON"):
        load_scheme(tmp_path / "bytes.json")


def small_map(tmp_path):
    """The coarse phantom as a file, with numbers of nobody's in a corner."""
    head = coarse_phantom_head()
    head.data[0, 0, :3] = 700, 701, 701
    path = tmp_path / "labels.nii.gz"
    nibabel.save(nibabel.Nifti1Image(head.data.astype(np.int16), head.grid.affine), path)
    return path


def test_the_command_says_how_it_read_the_map(tmp_path, capsys):
    path, out = small_map(tmp_path), tmp_path / "head.mrk.json"
    assert main(["annotate", str(path), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "read as freesurfer" in printed
    assert "note: not in this scheme and left out: 700, 701" in printed


def test_the_command_takes_a_file_of_ones_own(tmp_path, capsys):
    path, out, mine = small_map(tmp_path), tmp_path / "head.mrk.json", tmp_path / "mine.json"
    entries = [
        {"structure": e.structure, "labels": list(e.labels)} | ({"side": e.side} if e.side else {})
        for e in load_scheme("freesurfer").entries
    ]
    mine.write_text(json.dumps({"structures": [*entries, {"structure": "other", "labels": [700]}]}))
    assert main(["annotate", str(path), "--labels", str(mine), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "read as mine" in printed
    assert "left out: 701\n" in printed


def test_a_wrong_scheme_ends_with_code_2_and_writes_nothing(tmp_path, capsys):
    path, out = small_map(tmp_path), tmp_path / "head.mrk.json"
    for wrong in ("aseq+", str(tmp_path / "none.json"), "gif"):
        assert main(["annotate", str(path), "--labels", wrong, "-o", str(out)]) == 2
        assert "Traceback" not in capsys.readouterr().err
        assert not out.exists()
