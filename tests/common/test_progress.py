"""Progress without a terminal: a line now and then, or nothing."""

import pytest

from modalign.common import progress
from modalign.common.progress import bar


def test_lines_for_logs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with bar(True) as shown:
        task = shown.add_task("null of rsa", total=4)
        for _ in range(3):
            shown.advance(task)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"null of rsa: {share} % done" for share in (25, 50, 75)]
    assert all(line.endswith(" left") for line in lines)


def test_short_work_and_unasked_work_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (True, False):
        with bar(shown) as progress:
            progress.advance(progress.add_task("knn", total=2), 2)
    assert capsys.readouterr().err == ""
