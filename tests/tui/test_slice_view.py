"""The view of slices: what its keys do, and files that are no pictures."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.color import Color
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from ppgs.pictures import DamagedPicture, Picture, contour, fit, read_picture, resized_labels
from ppgs.runs.folder import RunFolder
from ppgs.tui.app import MonitorApp
from ppgs.tui.palette import CONTOURS
from ppgs.tui.source import ViewState
from ppgs.tui.widgets.slices import SliceImage, SlicesPanel
from tests.tui.conftest import Open, drive, make_run, settled, write_picture


def title(app: MonitorApp) -> str:
    return str(app.main.query_one(SlicesPanel).border_title)


def words(app: MonitorApp) -> str:
    return str(app.main.query_one("#slice-words", Static).content)


def pixels(app: MonitorApp, colour: str) -> int:
    """Half cells of the picture in this colour."""
    image, wanted = app.main.query_one("#slice-contours", SliceImage), Color.parse(colour).triplet
    styles = [s.style for y in range(image.size.height) for s in image.render_line(y) if s.style is not None]
    colours = [c for style in styles for c in (style.color, style.bgcolor) if c is not None]
    return sum(c.triplet == wanted for c in colours)


def test_the_newest_is_shown_and_one_can_page(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("3")
        await settled(pilot)
        assert title(app) == "demo_004  after epoch 12 in stage 2"
        assert "organ 0.680" in words(app) and "lesion 0.485" in words(app)
        seen = [title(app)]
        for key in ("left", "up", "left", "right", "down", "right"):
            await pilot.press(key)
            await settled(pilot)
            seen.append(title(app))
        epochs = [int(one.split("epoch ")[1].split()[0]) for one in seen]
        assert epochs == [12, 6, 1, 1, 6, 12, 12]
        await pilot.press("left", "left")
        await settled(pilot)
        assert "lesion -" in words(app)

    drive(app, steps)


def test_contours_come_closer(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "finished"))
    both: list[int] = []

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("3")
        for _ in range(6):
            await settled(pilot)
            both.append(pixels(app, CONTOURS.both))
            await pilot.press("left")

    drive(app, steps)
    assert both == sorted(both, reverse=True)
    assert both[0] > 3 * both[-1]


def test_contours_are_chosen(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))
    seen = []

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("3")
        for _ in range(5):
            await settled(pilot)
            colours = (CONTOURS.reference, CONTOURS.prediction, CONTOURS.both)
            seen.append("".join(n for n, c in zip("rpb", colours, strict=True) if pixels(app, c)))
            await pilot.press("b")

    drive(app, steps)
    assert seen == ["rpb", "r", "p", "", "rpb"]


def test_classes_are_chosen(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))
    lines = []

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("3")
        for _ in range(4):
            await settled(pilot)
            chosen = [line for line in words(app).splitlines() if line.startswith("▸")]
            lines.append((chosen, sum(pixels(app, c) for c in (CONTOURS.reference, CONTOURS.both))))
            await pilot.press("v")

    drive(app, steps)
    assert [chosen for chosen, _ in lines] == [[], ["▸ organ 0.680"], ["▸ lesion 0.485"], []]
    everything, organ, lesion, again = (count for _, count in lines)
    assert everything == again > lesion > 0
    assert organ > 2 * lesion


def test_play_shows_one_after_the_other_and_stops_at_the_last(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))
    rows: list[int] = []

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("3")
        await settled(pilot)
        panel = app.main.query_one(SlicesPanel)
        table = panel.query_one(DataTable)
        assert table.cursor_row == 2
        await pilot.press("space")
        assert panel._player is not None
        for _ in range(400):
            if not rows or rows[-1] != table.cursor_row:
                rows.append(table.cursor_row)
            if panel._player is None:
                return
            await pilot.pause(0.05)

    drive(app, steps)
    assert rows == [0, 1, 2]


def test_play_pauses(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("3", "space", "space")
        await settled(pilot)
        await pilot.pause(0.6)
        assert app.main.query_one("#slice-table", DataTable).cursor_row == 0

    drive(app, steps)


def test_a_new_picture_is_followed_unless_one_looks_at_another(results: Path, open_monitor: Open) -> None:
    run = make_run(results, "training", epochs=12)
    app = open_monitor(run, refresh=0.05)

    def another(epoch: int) -> None:
        write_picture(run.slices / f"epoch_{epoch:05d}.npz", epoch)
        with run.events.open("a") as file:
            file.write(
                f'{{"v": 1, "seq": 99, "time": 1.0, "type": "slice_written", "epoch": {epoch}, "stage": 2,'
                f' "file": "epoch_{epoch:05d}.npz", "case": "demo_004", "slice_dice": [0.9, 0.9]}}\n'
            )

    async def until(pilot: Pilot[Any], pictures: int) -> None:
        for _ in range(100):
            await settled(pilot)
            if app.main.query_one("#slice-table", DataTable).row_count == pictures:
                return
            await pilot.pause(0.05)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("3")
        await settled(pilot)
        another(13)
        await until(pilot, 4)
        assert "after epoch 14 " in title(app)
        await pilot.press("left")
        another(14)
        await until(pilot, 5)
        assert "after epoch 12 " in title(app)

    drive(app, steps)


def test_a_picture_that_comes_late_is_drawn(results: Path, open_monitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    app, may_go_on = open_monitor(make_run(results, "training")), threading.Event()

    def slowly(path: Path) -> Picture:
        assert may_go_on.wait(30)
        return read_picture(path)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("3")
        await pilot.pause()
        # News come while the picture is read.
        app.draw()
        assert not pixels(app, CONTOURS.reference)
        may_go_on.set()
        await settled(pilot)
        assert pixels(app, CONTOURS.reference)

    monkeypatch.setattr("ppgs.tui.app.read_picture", slowly)
    drive(app, steps)


def test_no_pictures(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "preparing"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("3", "left", "space", "v", "b")
        await settled(pilot)
        assert words(app).startswith("no pictures yet")

    drive(app, steps)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _store(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with np.load(path) as file:
            content = dict(file)
        content.update(changes)
        np.savez_compressed(path, **{k: v for k, v in content.items() if v is not None})

    return write


def _garble(path: Path) -> None:
    """Change bytes within the first compressed array."""
    content = bytearray(path.read_bytes())
    content[60:100] = bytes(range(40))
    path.write_bytes(content)


def _head(text: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        """Replace the description of the first array by one that is no Python literal."""
        header = text.ljust(117) + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("image.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)

    return write


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", bytes(50_000_000))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "cut": _cut,
    "text": lambda path: path.write_text("not a picture"),
    "empty": lambda path: path.write_bytes(b""),
    "bomb": _bomb,
    "garbled": _garble,
    "no header": _head(b"{'descr': ("),
    "no literal": _head(b"{'descr': )}"),
    "too large for memory": _head(b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,)}" % 2**62),
    "no image": _store(image=None),
    "pickled": _store(image=np.array([{}], dtype=object)),
    "three axes": _store(image=np.zeros((2, 3, 4), np.uint8)),
    "no pixels": _store(image=np.zeros((0, 4), np.uint8)),
    "other shape": _store(reference=np.zeros((2, 2), np.uint8)),
    "floats": _store(prediction=np.zeros((24, 30))),
    "spacing": _store(spacing=np.array([0.0, np.nan])),
    "spacing of words": _store(spacing=np.array(["a", "b"])),
    "index": _store(index=np.array([1, 2])),
    "long": _store(**{k: np.zeros((1, 5000), np.uint8) for k in ("image", "reference", "prediction")}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_no_picture_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "slices" / "epoch_00000.npz"
    write_picture(path, 3)
    assert read_picture(path).index == 17
    DAMAGE[damage](path)
    with pytest.raises(DamagedPicture):
        read_picture(path)


@pytest.mark.parametrize("damage", ["gone", "cut", "garbled"])
def test_a_picture_that_cannot_be_read_is_told(results: Path, open_monitor: Open, damage: str) -> None:
    run: RunFolder = make_run(results, "training")
    DAMAGE[damage](run.slices / "epoch_00011.npz")
    app = open_monitor(run)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("3")
        await settled(pilot)
        assert words(app).startswith("epoch_00011.npz cannot be shown")
        assert not pixels(app, CONTOURS.reference)
        await pilot.press("left")
        await settled(pilot)
        assert pixels(app, CONTOURS.reference)

    drive(app, steps)


def test_a_picture_outside_of_the_run_is_not_asked_for() -> None:
    state = ViewState()
    for seq, file in enumerate(("../x.npz", "/etc/passwd", "", 7, None)):
        state.apply({"v": 1, "seq": seq, "type": "slice_written", "epoch": 0, "stage": 0, "file": file})
    assert state.slices == {}
    assert state.damaged == 5


def test_what_is_kept_of_very_many_pictures_is_bounded() -> None:
    state = ViewState()
    for epoch in range(3000):
        state.apply({"type": "slice_written", "seq": epoch, "epoch": epoch, "stage": 0, "file": f"{epoch}.npz"})
    assert list(state.slices) == list(range(2000, 3000))


def picture(shape: tuple[int, int], spacing: tuple[float, float]) -> Picture:
    empty = np.zeros(shape, np.uint8)
    return Picture(empty, empty, empty, spacing, 0)


@pytest.mark.parametrize(
    ("shape", "spacing", "room", "size"),
    [
        ((32, 32), (1.0, 1.0), (80, 40), (40, 40)),
        ((32, 32), (1.0, 1.0), (20, 40), (20, 20)),
        ((20, 40), (2.0, 1.0), (80, 40), (40, 40)),
        ((10, 100), (1.0, 1.0), (50, 40), (50, 5)),
        ((1, 1000), (1.0, 1.0), (50, 40), (50, 1)),
    ],
)
def test_pictures_keep_their_proportions_in_mm(
    shape: tuple[int, int], spacing: tuple[float, float], room: tuple[int, int], size: tuple[int, int]
) -> None:
    assert fit(picture(shape, spacing), *room) == size


def test_labels_are_resized_without_new_ones() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[2:6, 1:4], labels[2:6, 4:7] = 1, 7
    large = resized_labels(labels, (40, 40))
    assert set(np.unique(large)) == {0, 1, 7}
    assert large[20, 12] == 1 and large[20, 28] == 7 and large[2, 2] == 0
    assert np.array_equal(resized_labels(labels, (8, 8)), labels)
    assert np.array_equal(resized_labels(labels, (8, 8), (7,)), labels == 7)


def test_a_contour_is_one_pixel_wide_and_open_at_the_pictures_end() -> None:
    labels = np.zeros((6, 8), int)
    labels[1:5, 2:] = 1
    labels[2:4, 4:6] = 2
    drawn = ["".join("#" if c else "." for c in row) for row in contour(labels)]
    assert drawn == ["........", "..######", "..#.##..", "..#.##..", "..######", "........"]
