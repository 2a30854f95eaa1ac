"""Broken and hostile input at every reader: a result or one sentence, and no code of it runs. fuzz.py reads more."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.broken_files import KINDS, read_mutations
from helpers.command_line import GOOD, Call
from helpers.image_files import Tripwire
from helpers.runs import BASE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cifar_tune.errors import UserError
from cifar_tune.search.space import load_space
from cifar_tune.store import STATE
from cifar_tune.training.checkpoint import load_state, save_state

pytestmark = [pytest.mark.faults, pytest.mark.slow]

NUM_MUTATIONS = {"state": 5, "finished trials": 5}  # which are slow to read; of all others 25
FIELDS = sorted(BASE.flatten())
TEXTS = ["", "nan", "inf", "-1", "0", "1e308", "9" * 5000, "none", "{}", "\n", "\0", "\udcff", "../x", "٣", "-", "adam"]
VALUES: list[Any] = [*TEXTS, -1, 0, 2.5, 1e-320, 10**400, None, True, [], {}, {"name": "sgd"}, b"x", 1j, ...]


def assert_sentence(error: UserError) -> None:
    message = str(error)
    assert "\n" not in message
    assert message.endswith(".")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """A process to read broken files in: a library that one of them confuses must not confuse later tests."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file_is_read_or_refused_with_a_sentence(
    kind: str, tmp_path: Path, elsewhere: ProcessPoolExecutor
) -> None:
    elsewhere.submit(read_mutations, kind, tmp_path, NUM_MUTATIONS.get(kind, 25)).result()


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.py"
    path.write_text(GOOD, encoding="utf-8")
    return path


few = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@few
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(), st.sampled_from(TEXTS) | st.text(), max_size=3))
def test_any_setting_is_taken_or_refused_with_a_sentence(space: Path, chosen: dict[str, str]) -> None:
    try:
        load_space(space, chosen)
    except UserError as error:
        assert_sentence(error)


@few
@given(st.sampled_from(FIELDS), st.sampled_from(VALUES))
def test_any_value_in_a_space_file_is_taken_or_refused_with_a_sentence(
    tmp_path: Path, name: str, value: object
) -> None:
    path = tmp_path / "space.py"
    path.write_text(f"{GOOD}\nBASELINE = BASELINE.replace({{{name!r}: {value!r}}})\n", encoding="utf-8")
    try:
        load_space(path)
    except UserError as error:
        assert_sentence(error)


def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path: Path) -> None:
    save_state(tmp_path, {"recipe": {}, "history": []})
    with pytest.raises(UserError, match=rf"{STATE} is damaged \(.*\); delete it, and the trial starts anew\.$"):
        load_state(tmp_path)
    torch.save({"model": Tripwire(tmp_path / "sprung")}, tmp_path / STATE)
    with pytest.raises(UserError, match="is damaged") as refused:
        load_state(tmp_path)
    assert_sentence(refused.value)
    assert not (tmp_path / "sprung").exists()


def test_names_in_a_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = KINDS["safetensors"].write(tmp_path)
    save_file({**load_file(path), "conv1\n\x1b[31m.weight": torch.ones(1)}, path)
    with pytest.raises(UserError, match=r"conv1��\[31m\.weight is not one of the network's") as refused:
        KINDS["safetensors"].read(path)
    assert_sentence(refused.value)


def test_an_image_starts_no_program_and_a_pipe_is_not_waited_for(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostScript is read by another program; here it would be one that leaves a file."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n", encoding="utf-8")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    weights = KINDS["classifier"].write(tmp_path)
    image, pipe, name = tmp_path / "image.png", tmp_path / "pipe.png", tmp_path / os.fsdecode(b"\xff\x1b[31m.png")
    image.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n", encoding="utf-8"
    )
    os.mkfifo(pipe)
    KINDS["image png"].write(tmp_path).rename(name)
    answer = call("predict", weights, image, pipe, name)
    assert answer.code == 2
    assert "\x1b" not in answer.stdout
    assert answer.stdout.count("%") == 3
    assert answer.stderr.count("was skipped") == 2
    assert not (tmp_path / "sprung").exists()
