"""The worker process: it answers, can be cancelled, killed and confused, and never lingers."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from BrainLandmarksLib import resources
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.worker import client, messages
from BrainLandmarksLib.worker.client import Worker
from BrainLandmarksLib.worker.messages import MessageError, decode, encode
from BrainLandmarksLib.worker.process_tree import ProcessTree
from BrainLandmarksLib.worker.server import Server

COMMAND = [sys.executable, "-m", "BrainLandmarksLib", "serve"]
PATIENCE_S = 600.0
"""A slow machine, busy with other tests, needs minutes for a detection."""


@pytest.fixture
def worker():
    made = Worker(COMMAND)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def calm():
    """One worker for the tests that leave it as it was; starting one takes seconds."""
    made = Worker(COMMAND)
    yield made
    made.stop()


def detect(worker, output, on_message, **changes):
    fields = {
        "image": str(resources.sample_head()),
        "output": str(output),
        "model": "brain88",
        "device": "cpu",
        "quality": "fast",
        **changes,
    }
    return worker.request("detect", on_message, **fields)


@pytest.fixture
def quickly_detected(head_file, tiny_model):
    """What makes a detection a matter of a second, where a test is not about its result."""
    return {"image": str(head_file), "model": str(tiny_model)}


def until(worker, condition, timeout_s=PATIENCE_S):
    """Poll until the condition holds; it never will where no request is left to bring it about."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert worker.busy, f"all has ended without it: {worker.diagnostics()}"
        assert time.monotonic() < end, worker.diagnostics()
        worker.poll()
        time.sleep(0.005)


def last(received):
    return received[-1] if received else {}


# Messages -----------------------------------------------------------------------------------------


def test_messages_survive_the_wire():
    message = {"v": 1, "id": "a", "type": "cancel", "target": "Zürich"}
    assert decode(encode(message), messages.REQUESTS) == message
    assert encode(message).count(b"\n") == 1


def test_a_name_of_bytes_that_are_no_text_survives_the_wire():
    message = {"v": 1, "id": "a", "type": "check", "dataset": "/data/M\udcfcller"}
    assert decode(encode(message), messages.REQUESTS) == message


@pytest.mark.parametrize("result", [math.nan, "x" * messages.LONGEST_LINE])
def test_a_result_that_is_no_message_ends_its_request_and_no_other(result):
    class Once:
        def do(self, message, progress):
            return {"notes": result if message["id"] == "a" else "good"}

    replies = io.BytesIO()
    server = Server(io.BytesIO(), replies, Once())
    for identity in "ab":
        server._do({"id": identity, "type": "check", "dataset": "set"})
    bad, good = [decode(line, messages.REPLIES) for line in replies.getvalue().splitlines(True)]
    assert (bad["id"], bad["type"], bad["code"]) == ("a", "error", "bug")
    assert (good["id"], good["type"], good["notes"]) == ("b", "result", "good")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"hello\n", "JSON"),
        (b"[1]\n", "object"),
        (b'\xff{"v": 1}\n', "JSON"),
        (b'{"v": 2, "id": "a", "type": "ping"}\n', "version"),
        (b'{"v": 1, "id": "a", "type": "dance"}\n', "unknown type"),
        (b'{"v": 1, "type": "ping"}\n', "id"),
        (b'{"v": 1, "id": "a", "type": "cancel"}\n', "lacks"),
        (b'{"v": 1, "id": "a", "type": "cancel", "target": 3}\n', "wrong type"),
        (b"x" * (messages.LONGEST_LINE + 1), "more than"),
    ],
)
def test_what_is_no_message_is_refused(line, why):
    with pytest.raises(MessageError, match=why):
        decode(line, messages.REQUESTS)


def test_every_message_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "worker.md").read_text(encoding="utf-8")
    for table in (messages.REQUESTS, messages.REPLIES):
        for kind, fields in table.items():
            assert f"`{kind}`" in text
            for field in fields:
                assert f"`{field}`" in text, (kind, field)
    for code in messages.ERROR_CODES:
        assert f"`{code}`" in text, code


def test_what_the_system_refuses_the_user_can_put_right():
    class Refused:
        def do(self, message, progress):
            raise PermissionError(13, "Permission denied", "set")

    replies = io.BytesIO()
    Server(io.BytesIO(), replies, Refused())._do({"id": "a", "type": "check", "dataset": "set"})
    reply = decode(replies.getvalue(), messages.REPLIES)
    assert (reply["type"], reply["code"]) == ("error", "user")
    assert reply["message"].startswith("set cannot be used: Permission denied;")


# A good day ---------------------------------------------------------------------------------------


def test_it_detects_twice_and_is_warm_the_second_time(worker, tmp_path):
    for number in range(2):
        output = tmp_path / f"{number}.mrk.json"
        received = []
        worker.wait(detect(worker, output, received.append), PATIENCE_S)
        assert last(received)["type"] == "result", last(received)
        stages = [m["stage"] for m in received if m["type"] == "progress"]
        assert list(dict.fromkeys(stages)) == ["load", "read", "prepare", "locate", "detect"]
        fractions = [m["fraction"] for m in received if m["type"] == "progress"]
        assert fractions == sorted(fractions)
        assert read_landmarks(output, load_protocol("brain88")).missing.sum() < 5
    assert last(received)["device"] == "cpu"
    etas = [m["eta_s"] for m in received if m["type"] == "progress"]
    assert all(eta is not None for eta in etas)
    assert etas == sorted(etas, reverse=True)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["0.mrk.json", "1.mrk.json"]


def test_two_requests_at_once_are_done_in_turn(calm, tmp_path, quickly_detected):
    first, second = [], []
    detect(calm, tmp_path / "1.mrk.json", first.append, **quickly_detected)
    identity = detect(calm, tmp_path / "2.mrk.json", second.append, **quickly_detected)
    calm.wait(identity, PATIENCE_S)
    assert last(first)["type"] == last(second)["type"] == "result"
    protocol = load_protocol(Path(quickly_detected["model"]) / "protocol.json")
    a, b = (read_landmarks(tmp_path / f"{n}.mrk.json", protocol).points for n in (1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.isfinite(a).all()


def test_a_head_is_added_to_a_dataset(calm, tmp_path, some_landmarks):
    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.review import Review, write_review

    review = Review.of(some_landmarks, "AB")
    review.confirm("CC_G")
    landmarks = tmp_path / "landmarks.mrk.json"
    write_review(landmarks, review)
    for dataset in ("set", "set", "no/set"):
        received = []
        identity = calm.request(
            "add", received.append, image=str(resources.sample_head()), protocol="brain88",
            landmarks=str(landmarks), dataset=str(tmp_path / dataset),
        )  # fmt: skip
        calm.wait(identity, PATIENCE_S)
        assert last(received)["type"] == "result", last(received)
        assert (last(received)["entry"], last(received)["heads"]) == ("0001", 1)
    (sample,) = Dataset.open(tmp_path / "set")
    assert sample.review.edits == review.edits
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    calm.wait(
        calm.request(
            "add", received.append, image=str(resources.sample_head()), protocol="brain88",
            landmarks=str(landmarks), dataset=str(tmp_path / "full"),
        ),
        PATIENCE_S,
    )  # fmt: skip
    assert last(received)["code"] == "user"


def test_an_estimate_runs_the_model_once(calm, tiny_model):
    received = []
    asked = {"model": str(tiny_model), "device": "cpu", "quality": "fast"}
    calm.wait(calm.request("estimate", received.append, **asked), PATIENCE_S)
    assert 0 < last(received)["seconds"] < PATIENCE_S
    received.clear()
    asked["quality"] = "perfect"
    calm.wait(calm.request("estimate", received.append, **asked), PATIENCE_S)
    assert last(received)["code"] == "user"


def test_ping_and_device(calm):
    received = []
    calm.wait(calm.request("ping", received.append), PATIENCE_S)
    calm.wait(calm.request("device", received.append, device="auto"), PATIENCE_S)
    assert [m["type"] for m in received] == ["result", "result"]
    assert received[1]["device"] in ("cpu", "cuda")
    assert received[1]["threads"] >= 1


# Bad days -----------------------------------------------------------------------------------------


def test_what_the_user_can_put_right_is_said_in_one_sentence(calm, tmp_path):
    for changes, word in (
        ({"image": str(tmp_path / "nothing.nii")}, "nothing.nii"),
        ({"model": "no-model"}, "no-model"),
        ({"quality": "divine"}, "divine"),
        ({"output": str(tmp_path / "no" / "folder" / "x.mrk.json")}, "cannot write"),
    ):
        received = []
        output = tmp_path / "out.mrk.json"
        calm.wait(detect(calm, **{"output": output, "on_message": received.append, **changes}),
                    PATIENCE_S)  # fmt: skip
        reply = last(received)
        assert (reply["type"], reply["code"]) == ("error", "user")
        assert word in reply["message"]
        assert "Traceback" not in reply["message"]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_in_mid_detection_it_says_so_and_the_next_click_works(
    worker, tmp_path, quickly_detected
):
    received = []
    detect(worker, tmp_path / "1.mrk.json", received.append)
    until(worker, lambda: last(received).get("stage") in ("locate", "detect"))
    os.kill(worker.pid, signal.SIGKILL)
    until(worker, lambda: not worker.busy)
    assert last(received)["type"] == "error"
    assert last(received)["code"] == "killed"
    assert "memory" in last(received)["message"]
    assert not (tmp_path / "1.mrk.json").exists()
    again = []
    worker.wait(
        detect(worker, tmp_path / "2.mrk.json", again.append, **quickly_detected), PATIENCE_S
    )
    assert last(again)["type"] == "result"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_crash_is_reported_with_the_last_lines(worker, tmp_path):
    received = []
    worker.wait(worker.request("ping", received.append), PATIENCE_S)
    detect(worker, tmp_path / "1.mrk.json", received.append)
    until(worker, lambda: last(received)["type"] == "progress")
    os.kill(worker.pid, signal.SIGSEGV)
    until(worker, lambda: not worker.busy)
    assert last(received)["code"] == "crashed"
    assert "SIGSEGV" in last(received)["message"]
    assert "Segmentation fault" in last(received)["detail"]
    assert "Segmentation fault" in worker.diagnostics()


def test_cancel_takes_less_than_a_second_and_leaves_nothing(worker, tmp_path, quickly_detected):
    received = []
    identity = detect(worker, tmp_path / "1.mrk.json", received.append, quality="standard")
    until(worker, lambda: last(received).get("stage") == "detect")
    start = time.monotonic()
    worker.cancel(identity)
    until(worker, lambda: not worker.busy)
    assert time.monotonic() - start < 1.0
    assert last(received)["type"] == "cancelled"
    assert sum(m["type"] in messages.FINAL for m in received) == 1
    assert not list(tmp_path.iterdir())
    again = []
    worker.wait(
        detect(worker, tmp_path / "2.mrk.json", again.append, **quickly_detected), PATIENCE_S
    )
    assert last(again)["type"] == "result"


def test_cancelling_the_waiting_leaves_the_running(worker, tmp_path, quickly_detected):
    first, second = [], []
    one = detect(worker, tmp_path / "1.mrk.json", first.append, **quickly_detected)
    two = detect(worker, tmp_path / "2.mrk.json", second.append)
    worker.cancel(two)
    worker.cancel(two)
    worker.wait(two, PATIENCE_S)
    worker.wait(one, PATIENCE_S)
    assert last(first)["type"] == "result"
    assert [m["type"] for m in second] == ["cancelled"]


FALLS_SILENT = """
import json, sys
def say(**fields):
    print(json.dumps({"v": 1, **fields}), flush=True)
say(type="hello", library="", pid=0)
for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "ping":
        say(type="result", id=request["id"])
"""


def test_a_worker_that_says_nothing_more_is_ended(tmp_path, monkeypatch):
    """It answers a ping and nothing else; the next one answers again."""
    script = tmp_path / "silent.py"
    script.write_text(FALLS_SILENT)
    worker = Worker([sys.executable, "-S", str(script)])
    received = []
    asked = (("ping", {}, PATIENCE_S), ("device", {"device": "cpu"}, 0.3), ("ping", {}, PATIENCE_S))
    for kind, fields, patience_s in asked:
        monkeypatch.setattr(client, "SILENCE_S", patience_s)
        worker.wait(worker.request(kind, received.append, **fields), PATIENCE_S)
    worker.stop()
    assert [message["type"] for message in received] == ["result", "error", "result"]
    assert received[1]["code"] == "silent"


@pytest.mark.slow  # the same with one that is halted, against its own clock
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_worker_that_is_halted_is_ended(worker, monkeypatch):
    monkeypatch.setattr(client, "SILENCE_S", 1.5)
    received = []
    worker.wait(worker.request("ping", received.append), PATIENCE_S)
    monkeypatch.setattr(client, "SILENCE_S", 3.0)
    os.kill(worker.pid, signal.SIGSTOP)
    identity = worker.request("device", received.append, device="cpu")
    worker.wait(identity, PATIENCE_S)
    assert last(received)["code"] == "silent"
    worker.wait(worker.request("ping", received.append), PATIENCE_S)
    assert last(received)["type"] == "result"


def test_a_program_that_is_not_there(tmp_path):
    worker = Worker([str(tmp_path / "nobody")])
    received = []
    worker.request("ping", received.append)
    assert last(received)["code"] == "not_started"


def test_a_worker_of_another_version_is_refused(tmp_path):
    script = tmp_path / "old.py"
    script.write_text(
        'import time; print(\'{"v": 0, "type": "hello"}\', flush=True); time.sleep(60)'
    )
    worker = Worker([sys.executable, str(script)])
    received = []
    worker.request("ping", received.append)
    until(worker, lambda: bool(received))
    assert last(received)["code"] == "version"
    assert not worker.running


def test_a_broken_installation_is_said_once():
    worker = Worker([sys.executable, "-c", "import no_such_module_anywhere"])
    received = []
    worker.wait(worker.request("ping", received.append), PATIENCE_S)
    assert [m["code"] for m in received] == ["not_started"]
    assert "no_such_module_anywhere" in received[0]["message"]
    assert not worker.running


def test_garbage_on_standard_input_is_answered_and_forgotten():
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    ping = encode({"v": 1, "id": "a", "type": "ping"})
    garbage = [b"\x00\xff\xfe\n", b"\n", b"{}\n", b"x" * (2 * messages.LONGEST_LINE) + b"\n"]
    output, _ = process.communicate(b"".join(garbage) + ping, timeout=PATIENCE_S)
    replies = [json.loads(line) for line in output.splitlines()]
    assert replies[0]["type"] == "hello"
    bad = [r for r in replies if r["type"] == "error"]
    assert len(bad) >= 3
    assert {r["code"] for r in bad} == {"bad_message"}
    assert [r["id"] for r in replies if r["type"] == "result"] == ["a"]
    assert process.returncode == 0


def test_it_leaves_with_its_client(tmp_path):
    """The client dies without a word, in mid-detection; the worker is gone soon after."""
    script = tmp_path / "slicer.py"
    script.write_text(
        "import os, sys, time\n"
        "from BrainLandmarksLib.worker.client import Worker\n"
        f"worker = Worker({COMMAND!r})\n"
        "seen = []\n"
        f"worker.request('detect', seen.append, image={str(resources.sample_head())!r},\n"
        f"    output={str(tmp_path / 'x.mrk.json')!r}, model='brain88', device='cpu',\n"
        "    quality='fast')\n"
        "while not seen or seen[-1].get('stage') not in ('locate', 'detect'):\n"
        "    assert worker.busy, seen\n"
        "    worker.poll()\n"
        "print(worker.pid, flush=True)\n"
        "os._exit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], stdout=subprocess.PIPE, timeout=PATIENCE_S, check=False
    )
    pid = int(done.stdout)
    end = time.monotonic() + 5.0
    while _exists(pid):
        assert time.monotonic() < end, "the worker lingers"
        time.sleep(0.05)


def _exists(pid):
    status = Path(f"/proc/{pid}/stat")
    if status.parent.parent.exists():
        try:
            return status.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


@pytest.mark.skipif(os.name == "nt", reason="POSIX process groups")
def test_ending_a_tree_ends_the_launcher_s_child():
    """PythonSlicer is a launcher: what it started must go with it."""
    launcher = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    tree = ProcessTree([sys.executable, "-c", launcher])
    child = int(tree.stdout.readline())
    assert _exists(child)
    tree.kill()
    tree.close()
    end = time.monotonic() + 5.0
    while _exists(child):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert tree.poll() is not None


def test_the_client_needs_no_heavy_import():
    code = (
        "import sys; before = set(sys.modules); import BrainLandmarksLib.worker.client;"
        "print([m for m in ('torch', 'numpy', 'nibabel', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Explanations -------------------------------------------------------------------------------------


def explain(worker, output, on_message, **changes):
    fields = {
        "image": str(resources.sample_head()),
        "output": str(output),
        "model": "brain88",
        "device": "cpu",
        "landmarks": ["CC_G"],
        "layer": "",
        **changes,
    }
    return worker.request("explain", on_message, **fields)


def explained(worker, output, **changes):
    received = []
    worker.wait(explain(worker, output, received.append, **changes), PATIENCE_S)
    return received


def test_it_explains_and_remembers_what_it_saw(worker, tmp_path, head_file, tiny_model):
    common = {"model": str(tiny_model), "image": str(head_file)}
    first = explained(worker, tmp_path / "maps", landmarks=["B_M"], **common)
    assert last(first)["type"] == "result", last(first)
    stages = dict.fromkeys(m["stage"] for m in first if m["type"] == "progress")
    assert list(stages) == ["load", "read", "prepare", "locate", "detect", "map"]
    fractions = [m["fraction"] for m in first if m["type"] == "progress"]
    assert fractions == sorted(fractions)
    (written,) = last(first)["maps"]
    assert (written["label"], written["index"], written["group"]) == ("B_M", 3, "Front")
    assert Path(written["file"]) == tmp_path / "maps" / "B_M.nii"
    again = explained(
        worker, tmp_path / "maps", landmarks=["c_r", "B_M"], layer=last(first)["layer"], **common
    )
    assert last(again)["remembered"] == "map"
    assert [m["label"] for m in last(again)["maps"]] == ["B_M", "C_R"]
    assert last(again)["maps"][0] == written
    assert {m["stage"] for m in again if m["type"] == "progress"} == {"load", "map"}
    names = sorted(p.name for p in (tmp_path / "maps").iterdir())
    assert names == ["B_M.nii", "C_R.nii"]
    third = explained(
        worker, tmp_path / "maps", landmarks=["B_M"], layer="stages.1.0.conv1", **common
    )
    assert last(third)["remembered"] == "detect"
    assert last(third)["maps"][0]["score"] == pytest.approx(written["score"])
    assert last(third)["maps"][0]["raw_maximum"] != written["raw_maximum"]


def test_a_detection_is_remembered_for_its_explanation(worker, tmp_path, head_file, tiny_model):
    common = {"model": str(tiny_model), "image": str(head_file)}
    maps = {**common, "landmarks": [], "output": str(tmp_path / "maps")}
    received = []
    worker.wait(detect(worker, tmp_path / "1.mrk.json", received.append, **common,
                       quality="standard"), PATIENCE_S)  # fmt: skip
    found = read_landmarks(tmp_path / "1.mrk.json", load_protocol(tiny_model / "protocol.json"))
    reply = last(explained(worker, **maps))
    assert reply["remembered"] == "detect"
    assert [m["label"] for m in reply["maps"]] == list(found.protocol.labels)
    np.testing.assert_allclose([m["landmark"] for m in reply["maps"]], found.points, atol=2e-3)
    # Another image under the same name is another image.
    other = tmp_path / "other.nii.gz"
    other.write_bytes(head_file.read_bytes())
    assert last(explained(worker, **{**maps, "image": str(other)}))["remembered"] == "map"
    import nibabel as nib

    image = nib.load(head_file)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), other)
    assert last(explained(worker, **{**maps, "image": str(other)}))["remembered"] == "nothing"


def test_what_cannot_be_explained_is_said_in_one_sentence(calm, tmp_path, head_file, tiny_model):
    (tmp_path / "file").write_text("x")
    for changes, word in (
        ({"landmarks": ["B_L"]}, "did you mean"),
        ({"landmarks": ["A_L", 7]}, "has 1 to 5"),
        ({"layer": "stages.0.0.conv3"}, "did you mean stages.0.0.conv"),
        ({"model": "no-model"}, "no-model"),
        ({"image": str(tmp_path / "nothing.nii")}, "nothing.nii"),
        ({"output": str(tmp_path / "file" / "maps")}, "cannot write"),
    ):
        fields = {"image": str(head_file), "model": str(tiny_model), "landmarks": [], **changes}
        reply = last(explained(calm, **{"output": tmp_path / "maps", **fields}))
        assert (reply["type"], reply["code"]) == ("error", "user"), reply
        assert word in reply["message"]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_cancelled_explanation_ends_within_a_second_and_leaves_nothing(worker, tmp_path):
    received = []
    identity = explain(worker, tmp_path / "maps", received.append, landmarks=[])
    until(worker, lambda: last(received).get("stage") == "map")
    start = time.monotonic()
    worker.cancel(identity)
    until(worker, lambda: not worker.busy)
    assert time.monotonic() - start < 1.0
    assert last(received)["type"] == "cancelled"
    assert not list(tmp_path.iterdir())


def test_it_writes_the_files_of_the_command_explain(calm, tmp_path, head_file, tiny_model):
    common = {"image": str(head_file), "model": str(tiny_model), "device": "cpu", "layer": ""}

    def export(folder, **fields):
        received = []
        identity = calm.request(
            "export", received.append, **common, output=str(tmp_path / folder), name="head",
            **{"landmarks": [], "files": "landmark", **fields},
        )  # fmt: skip
        calm.wait(identity, PATIENCE_S)
        return last(received)

    reply = export("one", landmarks=["B_M", "C_R"])
    names = ["head_gradcam_B_M.nii.gz", "head_gradcam_C_R.nii.gz", "head_gradcam.json"]
    assert [Path(file).name for file in reply["files"]] == names, reply
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(names)
    record = json.loads((tmp_path / "one" / "head_gradcam.json").read_text(encoding="utf-8"))
    assert [m["label"] for m in record["maps"]] == ["B_M", "C_R"]
    assert "no measure of confidence" in record["meaning"]
    assert [Path(f).name for f in export("4d", files="4d")["files"]] == [
        "head_gradcam.nii.gz", "head_gradcam.json",
    ]  # fmt: skip
    reply = export("bad", files="zip")
    assert (reply["code"], "by 'zip'" in reply["message"]) == ("user", True)
    assert not list((tmp_path / "bad").iterdir())


def test_it_names_the_layers(calm, tiny_model):
    received = []
    calm.wait(calm.request("layers", received.append, model=str(tiny_model), device="cpu"),
                PATIENCE_S)  # fmt: skip
    reply = last(received)
    assert reply["layers"][0] == "first.0"
    assert reply["layers"][-1] == "classifier"
    assert reply["default"] in reply["layers"]


def test_two_models_stay_warm_with_what_they_saw(worker, tmp_path, head_file, tiny_model):
    models = [tmp_path / name for name in "abc"]
    for model in models:
        shutil.copytree(tiny_model, model)

    def remembered(model):
        fields = {"image": str(head_file), "model": str(model), "landmarks": ["B_M"]}
        return last(explained(worker, tmp_path / "maps", **fields))["remembered"]

    first, second, third = models
    assert [remembered(m) for m in (first, second, first, second)] == [
        "nothing", "nothing", "map", "map",
    ]  # fmt: skip
    assert [remembered(m) for m in (third, second, first)] == ["nothing", "map", "nothing"]
