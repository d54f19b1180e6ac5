from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import InputError
from seq2exp.spatial.recall import pessimistic_ranks, recall_table


def origin(num, sections):
    section = np.arange(num) * sections // num
    spot = np.arange(num) - section * (num // sections)
    return {"section_S": section, "spot_S": spot}


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_random_embeddings_reach_k_over_n(size):
    random = np.random.default_rng(0)
    num = 4096
    image, gene = random.normal(size=(2, num, 16))
    table = recall_table(image, gene, **origin(num, 4), sizes=(size,), ks=(1, 5, 10))
    assert set(table["scope"]) == {"within", "across"}
    for row in table.to_dict("records"):
        assert row["size"] == size
        assert row["num_queries"] == num
        chance = row["k"] / size
        assert row["chance"] == pytest.approx(chance)
        error = np.sqrt(chance * (1 - chance) / num)
        assert abs(row["recall"] - chance) < 4 * error
        assert row["mean_rank"] == pytest.approx((size + 1) / 2, rel=0.1)


def test_perfect_embeddings_reach_one_and_equal_ones_nothing():
    image = np.random.default_rng(0).normal(size=(200, 8))
    perfect = recall_table(image, 3 * image, **origin(200, 2), sizes=(64, "section"), ks=(1,))
    assert (perfect["recall"] == 1).all()
    same = np.ones((200, 8)) / 3
    tied = recall_table(same, same, **origin(200, 2), sizes=(64, "section"), ks=(1, 5, 10))
    assert (tied["recall"] == 0).all()
    assert (tied["mean_rank"] == tied["size"]).all()


def test_ranks_by_hand():
    # Cosines of the first query with the keys: 1, 0, 1 - a tie with the third counts against it.
    query = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    key = np.array([[5.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    # Third query: cosines .71, .71, .71; both others are ahead.
    assert pessimistic_ranks(query, key).tolist() == [2, 1, 3]


def test_the_order_of_spots_does_not_matter():
    random = np.random.default_rng(1)
    image = random.normal(size=(300, 6))
    gene = image + 0.7 * random.normal(size=(300, 6))
    places = origin(300, 3)
    table = recall_table(image, gene, **places, sizes=(32, "section"))
    order = random.permutation(300)
    shuffled = {name: values[order] for name, values in places.items()}
    again = recall_table(image[order], gene[order], **shuffled, sizes=(32, "section"))
    assert table.equals(again)
    other = recall_table(image, gene, **places, sizes=(32, "section"), seed=1)
    assert not table.equals(other)


def test_knowing_the_section_helps_across_sections_only():
    random = np.random.default_rng(2)
    colour = 5 * random.normal(size=(8, 6))
    places = origin(800, 8)
    image, gene = (colour[places["section_S"]] + random.normal(size=(800, 6)) for _ in range(2))
    table = recall_table(image, gene, **places, sizes=(64,), ks=(5,))
    within, across = (
        table[table["scope"] == scope]["recall"].mean() for scope in ("within", "across")
    )
    assert within == pytest.approx(5 / 64, abs=0.03)
    assert across > 3 * 5 / 64


def test_sections_whole_and_sizes_that_no_section_has():
    image = np.random.default_rng(3).normal(size=(90, 4))
    table = recall_table(image, image, **origin(90, 3), sizes=(64, 1000, "section"), ks=(1,))
    sizes = table[["scope", "size", "num_galleries"]].drop_duplicates().to_records(index=False)
    assert sorted(map(tuple, sizes.tolist())) == [("across", 64.0, 1), ("within", 30.0, 3)]


def test_embeddings_that_are_no_number_are_refused():
    image = np.zeros((4, 2))
    with pytest.raises(InputError, match="no number"):
        recall_table(image, image * np.nan, **origin(4, 1))
    with pytest.raises(InputError, match="shapes"):
        recall_table(image, image[:, :1], **origin(4, 1))
