"""The export of `evaluate`: every network as a program, and every shipped space with another baseline."""

from pathlib import Path

import pytest
import torch
from helpers.runs import BASE, variants

from cifar_tune.evaluation.export import as_program, with_baseline
from cifar_tune.search.space import load_space
from cifar_tune.training.inference import Classifier

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.py"))


@pytest.mark.parametrize("name", variants("model"))
def test_a_program_returns_the_networks_logits_for_any_number_of_images(name: str) -> None:
    torch.manual_seed(0)
    network = BASE.replace({"model/name": name}).model.build(10)
    classifier = Classifier(network, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4], list("0123456789")).eval()
    program = as_program(classifier).module()
    for number in (1, 3):
        images = torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8)
        with torch.inference_mode():
            torch.testing.assert_close(program(images), classifier(images))


@pytest.mark.parametrize("settings", [{}, {"train_images": "900", "epochs": "50"}], ids=["as it is", "with settings"])
@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_space_can_start_from_any_of_its_recipes(path: Path, settings: dict[str, str], tmp_path: Path) -> None:
    space = load_space(path, settings)
    for number, recipe in enumerate([*space.baselines, *space.draw_recipes(5)]):
        written = tmp_path / f"winner{number}.py"
        written.write_text(with_baseline(space.source, settings, recipe, "A winner."), encoding="utf-8")
        loaded = load_space(written)
        assert loaded.baselines == (recipe,)
        assert loaded.settings == settings
