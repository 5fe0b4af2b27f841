"""Results appear whole, and never in the place of something that is no file."""

import os
from pathlib import Path

import pytest
from foundry_sim.whole_file import whole_file


def test_a_file_keeps_what_it_was_until_all_is_written(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("before")
    with pytest.raises(ZeroDivisionError), whole_file(target) as out:
        out.write("half")
        raise ZeroDivisionError
    assert target.read_text() == "before"
    with whole_file(target) as out:
        out.write("after")
    assert target.read_text() == "after" and list(tmp_path.iterdir()) == [target]


def test_a_link_stays_one_and_what_it_names_is_written(tmp_path: Path) -> None:
    link, real = tmp_path / "link", tmp_path / "real"
    link.symlink_to(real)
    with whole_file(link) as out:
        out.write("text")
    assert link.is_symlink() and real.read_text() == "text"


def test_what_is_no_file_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with whole_file(pipe) as out:
        out.write("text")
    assert os.read(reader, 100) == b"text" and pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]
    os.close(reader)


def test_a_folder_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), whole_file(tmp_path):
        raise AssertionError
