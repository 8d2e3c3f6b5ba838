"""The page on a cohort: what it says, that it needs no network, and how a browser shows it."""

import base64
import gzip
import json
import re
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
from bids_tree import write_dataset
from PIL import Image

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.cohort import report, viewer
from BrainLandmarksLib.cohort.bids import BidsScan
from BrainLandmarksLib.cohort.derivatives import Derivatives, ScanRecord
from BrainLandmarksLib.cohort.report import write_report
from BrainLandmarksLib.cohort.table import ReportedScan
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import read_review, write_review

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
# Software rendering, no sandbox (it does not run as root), and no call to any server.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-gpu-watchdog",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=15000",
]


def record(landmarks, deviation, **about):
    return ScanRecord(
        BidsScan("sub-01", "T1w", "sub-01/anat/x"), "", about, landmarks, np.array(deviation)
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory, blob_head, tiny_model):
    """Three scans of which one is bad."""
    folder = tmp_path_factory.mktemp("report")
    names = [f"sub-{number:02d}_T1w.nii.gz" for number in (1, 2, 3)]
    data = write_dataset(folder / "data", blob_head, names)
    (data / "sub-02/anat/sub-02_T1w.nii.gz").write_text("<b>not an image</b>")
    arguments = ["detect", "--bids", str(data), "-o", str(folder / "out")]
    assert main([*arguments, "--model", str(tiny_model)]) == 2
    results = Derivatives.open(folder / "out")
    # The network of the tests is not trained: its points are moved to where they can be told apart.
    path = results.folder / "sub-03/anat/sub-03_desc-tiny_landmarks.mrk.json"
    review, _ = read_review(path, results.protocol)
    places = [(-40, 30, 0), (40, 30, 0), (0, 50, 0), (-30, -40, 0), (30, -40, 0)]
    review.move_many(dict(zip(results.protocol.labels, places)), "respaced")
    write_review(path, review)
    return results


def test_a_case_is_judged_by_what_nobody_has_corrected(tiny_protocol):
    points = np.zeros((5, 3))
    points[4] = np.nan
    landmarks = LandmarkSet.from_points(
        tiny_protocol, points, "model", [0.9, 0.5, 0.8, 0.9, 0.9], [""] * 4 + ["no eye here"]
    )
    case = ReportedScan.of(
        record(landmarks, [1.0, 1.0, 6.4, 1.0, np.nan], Notes=["the GPU is full"])
    )
    assert case.status == "check"
    assert case.worst == [2, 1, 0, 3]
    assert case.warnings == (
        "1 of 5 landmarks are missing (no eye here).",
        "Not where the other landmarks lead to expect them: B_M.",
        "The GPU is full.",
    )
    landmarks.status[2] = "confirmed"
    again = ReportedScan.of(record(landmarks, [1.0, 1.0, 6.4, 1.0, np.nan]))
    assert again.worst == [1, 0, 3]
    assert len(again.warnings) == 1
    fine = LandmarkSet.from_points(tiny_protocol, np.zeros((5, 3)), "model", np.full(5, 0.9))
    failed = ReportedScan.of(ScanRecord(BidsScan("sub-02", "T1w", "y"), "it is damaged."))
    assert ReportedScan.of(record(fine, np.ones(5))).status == "ok"
    order = sorted(
        [ReportedScan.of(record(fine, np.ones(5))), again, case, failed], key=lambda c: c.urgency
    )
    assert [each.status for each in order] == ["failed", "check", "check", "ok"]
    assert order[1] is case


def test_a_page_that_cannot_be_written_is_refused_before_it_is_made(results, tmp_path, capsys):
    page = tmp_path / "no" / "page.html"
    assert main(["report", str(results.folder), "-o", str(page)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the folder of {page} does not exist" in line


def test_the_small_head_lies_where_the_head_lies(blob_head):
    turn = np.eye(4)
    turn[:3, :3] = [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]
    turn[:3, 3] = [5, -7, 11]
    fine = Grid((150, 140, 60), turn @ np.diag([0.9, 0.8, 2.5, 1.0]))
    ras = fine.ijk_to_ras(np.moveaxis(np.indices(fine.shape), 0, -1))
    center = fine.center_ras
    bright = np.exp(-(((ras - center) / 15) ** 2).sum(-1)).astype(np.float32)
    packed = viewer.small_head(Volume(bright, fine))
    image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(packed)))
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(np.linalg.norm(image.affine[:3, :3], axis=0), [2, 2, 2.5])
    data = image.get_fdata()
    weights = data / data.sum()
    middle = [float((np.indices(data.shape)[axis] * weights).sum()) for axis in range(3)]
    np.testing.assert_allclose(image.affine[:3] @ [*middle, 1], center, atol=0.05)


def test_the_page_lists_the_worst_first_and_needs_no_network(results):
    text = write_report(results, shown=1).read_text(encoding="utf-8")
    names = re.findall(r'<button class="case[^>]*data-case="([^"]+)"', text)
    assert names[0] == "sub-02_T1w"
    assert sorted(names) == ["sub-01_T1w", "sub-02_T1w", "sub-03_T1w"]
    assert "1 failed, 0 with a warning, 2 without" in text
    assert len(re.findall('src="data:image/jpeg;base64,', text)) == 1
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert str(results.folder) not in text


def test_without_niivue_the_page_has_pictures_and_says_how_to_get_it(
    results, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(report, "find_bundle", lambda: None)
    monkeypatch.setattr(viewer, "find_bundle", lambda: None)
    page = tmp_path / "page.html"
    assert main(["report", str(results.folder), "-o", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert len(re.findall('src="data:image/jpeg;base64,', text)) == 2
    assert "pip install &#39;brainlandmarks[report]&#39;" in text
    assert "niivue" not in text.replace("NiiVue", "").split("<script")[0]
    assert 'id="viewer"' not in text
    assert "pip install 'brainlandmarks[report]'" in capsys.readouterr().out


def test_pictures_of_a_dataset_that_is_gone_are_left_out(results, tmp_path):
    moved = shutil.copytree(results.folder, tmp_path / "elsewhere" / "deep" / "out")
    text = write_report(Derivatives.open(moved)).read_text(encoding="utf-8")
    assert "data:image/jpeg" not in text
    assert "There is no picture: the BIDS dataset is not where it was" in text
    raw = results.raw()
    text = write_report(Derivatives.open(moved), raw=raw).read_text(encoding="utf-8")
    assert len(re.findall('src="data:image/jpeg;base64,', text)) == 2


def test_niivue_is_found_in_its_package(tmp_path, monkeypatch):
    bundle = viewer.find_bundle()
    assert bundle is not None
    source = gzip.decompress(base64.b64decode(bundle.module)).decode("utf-8")
    exported = source[source.rindex("export{") :]
    for name in ("Niivue", "NVImage", "SHOW_RENDER", "MULTIPLANAR_TYPE"):
        assert re.search(rf"[,{{]({name}|\w+ as {name})[,}}]", exported), name
    assert "BSD 2-Clause" in bundle.licence

    other = tmp_path / "ipyniivue"
    (other / "static").mkdir(parents=True)
    (other / "__init__.py").touch()
    (other / "static" / "widget.js").write_text("export default {}")
    monkeypatch.syspath_prepend(tmp_path)
    assert viewer.find_bundle() is None


def test_a_name_cannot_break_the_page(tiny_protocol, results):
    case = report._listed(
        ReportedScan.of(ScanRecord(BidsScan("sub-01", "T1w", "x"), "</script><b>bad</b>"))
    )
    text = report._render(results, [case], None)
    assert "</script><b>" not in text
    assert "&lt;b&gt;bad" in text


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
def test_a_browser_shows_the_head_with_its_landmarks(results, tmp_path):
    page = write_report(results, tmp_path / "page.html")
    picture = tmp_path / "page.png"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000"]
        + ["--dump-dom", f"--screenshot={picture}", f"{page.as_uri()}#sub-03_T1w"],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    body = re.search("<body[^>]*>", done.stdout)
    assert body is not None
    assert 'data-viewer="ready"' in body[0]
    (current,) = re.findall(r'<button[^>]*data-case="([^"]+)"[^>]*aria-current="true"', done.stdout)
    assert current == "sub-03_T1w"
    with Image.open(picture) as image:
        stage = np.asarray(image.convert("RGB"))[130:700, 410:1380].astype(int)
    grey = np.ptp(stage, axis=-1) < 12
    assert (grey & (stage.mean(-1) > 60)).mean() > 0.05, "the head"
    red, green, blue = np.moveaxis(stage, -1, 0)
    # Shaded, the colours of the two groups keep their order of channels.
    assert ((blue > green + 40) & (green > red + 20)).sum() > 20, "landmarks of the blue group"
    assert ((red > green + 30) & (green > blue + 40)).sum() > 20, "landmarks of the yellow group"


def test_the_viewer_gets_the_points_that_are_there(some_landmarks):
    nodes = viewer.nodes(some_landmarks)
    present = np.flatnonzero(~some_landmarks.missing)
    assert [node["label"] for node in nodes] == [some_landmarks.protocol.labels[k] for k in present]
    np.testing.assert_allclose(
        [node["point"] for node in nodes], some_landmarks.points[present], atol=0.051
    )
    assert {node["group"] for node in nodes} == set(range(len(some_landmarks.protocol.groups)))
    json.dumps(nodes)
