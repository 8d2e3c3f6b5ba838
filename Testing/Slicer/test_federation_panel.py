"""The section Join a federation: choose, join in the background, follow the rounds, leave."""

from __future__ import annotations

from pathlib import Path

import pytest
from polling import until

from BrainLandmarksLib.mrml import requirements
from BrainLandmarksLib.worker.background_run import RUN_FILE, BackgroundRun
from BrainLandmarksTrainLib.federation.progress import SiteProgress, write_progress

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "BrainLandmarksTrain" / "BrainLandmarksTrain.py"


@pytest.fixture
def panel(desktop, tmp_path):
    yield desktop.open(MODULE).self()
    for file in tmp_path.rglob(RUN_FILE):
        BackgroundRun.attach(file.parent).kill()


@pytest.fixture
def chosen(panel, six_heads, tmp_path, phantom):
    """The panel with all that joining needs."""
    from certificates import certificate  # beside the phantom

    file = tmp_path / "ca.crt"
    file.write_bytes(certificate())
    parameters = panel.logic.getParameterNode()
    parameters.dataset = six_heads
    parameters.federationServer = "127.0.0.1:9"
    parameters.federationCertificate = file
    parameters.federationOutput = tmp_path / "joined"
    parameters.trainingDevice = "cpu"
    return panel


@pytest.fixture
def waiting(monkeypatch):
    """What was started: the command itself, which looks for a server that is not there."""
    arguments = []
    start = BackgroundRun.start.__func__

    def begin(cls, folder, given):
        arguments.append(list(given))
        return start(cls, folder, given)

    monkeypatch.setattr(BackgroundRun, "start", classmethod(begin))
    return arguments


def test_nothing_can_be_joined_before_everything_is_chosen(panel, six_heads, tmp_path):
    ui = panel.ui
    assert not ui.joinButton.enabled
    assert not ui.leaveButton.enabled
    assert not ui.federationBar.visible
    assert "choose a dataset" in ui.federationDataInfoLabel.text
    parameters = panel.logic.getParameterNode()
    parameters.dataset = six_heads
    parameters.federationServer = "federation.org:8000"
    parameters.federationOutput = tmp_path / "joined"
    assert not ui.joinButton.enabled  # nobody knows whom one talks to without a certificate
    assert ui.federationDataInfoLabel.text == six_heads.name
    parameters.federationCertificate = tmp_path / "ca.crt"
    assert ui.joinButton.enabled


def test_the_key_and_the_app_are_given_where_they_are_chosen(chosen, desktop, tmp_path):
    section = chosen.panel.federation
    assert not {"--key", "--app"} & set(section.arguments())
    parameters = chosen.logic.getParameterNode()
    parameters.federationKey = tmp_path / "site.key"
    chosen.ui.federationAppPath.currentPath = str(tmp_path / "joined_app")
    assert parameters.federationApp == tmp_path / "joined_app"
    arguments = section.arguments()
    assert arguments[arguments.index("--key") + 1] == str(tmp_path / "site.key")
    assert arguments[arguments.index("--app") + 1] == str(tmp_path / "joined_app")


def test_joining_asks_for_flower_only_here(chosen, monkeypatch):
    asked = []
    monkeypatch.setattr(
        type(chosen.panel), "ready", lambda self, **what: asked.append(what) or False
    )
    chosen.ui.joinButton.click()
    assert asked == [{"training": True, "federated": True}]
    assert chosen.panel.federation.run is None
    assert set(requirements.FEDERATED) & set(
        requirements.Missing(requirements.FEDERATED, False).packages
    )


def test_the_site_trains_in_the_background_and_its_rounds_are_shown(
    chosen, waiting, desktop, tmp_path
):
    ui, section = chosen.ui, chosen.panel.federation
    ui.joinButton.click()
    (arguments,) = waiting
    assert arguments[:4] == ["federate", "site", "--server", "127.0.0.1:9"]
    assert arguments[arguments.index("--dataset") + 1] == str(
        chosen.logic.getParameterNode().dataset
    )
    assert "--insecure" not in arguments
    assert not ui.joinButton.enabled
    assert ui.leaveButton.enabled
    assert not ui.federationServerEdit.enabled
    assert not ui.federationAppPath.enabled
    folder = tmp_path / "joined"
    log = folder / "run.log"
    until(desktop, lambda: "joining 127.0.0.1:9" in log.read_text())
    write_progress(folder, SiteProgress(3, 10, "training the fine network", 0.5))
    section.poll()
    assert ui.federationLabel.text == "Round 3 of 10: training the fine network, loss 0.5."
    assert (ui.federationBar.value, ui.federationBar.maximum) == (2, 10)
    ui.leaveButton.click()
    assert ui.federationLabel.text == "Leaving the federation …"
    until(desktop, lambda: section.poll() or section.run is None)
    assert ui.joinButton.enabled
    assert ui.federationLabel.text.startswith("This site has left the federation")


def test_a_federation_is_found_again(chosen, waiting, desktop, tmp_path):
    chosen.ui.joinButton.click()
    first = chosen.panel.federation
    folder = first.run.folder
    until(desktop, lambda: BackgroundRun.attach(folder).state() == "running")
    first.close()  # as when Slicer is closed
    assert first.run is None
    first.bind()
    assert first.run is not None
    assert chosen.ui.leaveButton.enabled
    chosen.ui.leaveButton.click()
    chosen.ui.leaveButton.click()
