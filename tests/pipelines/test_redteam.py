from itertools import product

from pipelines.redteam import drawing_seed, more_drawings


def test_no_two_drawings_of_two_runs_share_a_seed():
    names = ["train-before", "heldout-before", *more_drawings(40)]
    seeds = {drawing_seed(name, seed) for name, seed in product(names, range(5))}
    assert len(seeds) == 5 * len(names)


def test_texts_before_and_after_are_drawn_alike():
    assert drawing_seed("heldout-before", 3) == drawing_seed("heldout-after", 3)
    assert drawing_seed("train-before", 3) == drawing_seed("train-after", 3) != drawing_seed("heldout-after", 3)
