from __future__ import annotations

import pytest

from glebe.gpu import catalogue


def test_finds_by_full_name_in_any_case_and_by_unique_prefix() -> None:
    assert catalogue.find("H100-SXM5-80GB").product == "NVIDIA-H100-80GB-HBM3"
    assert catalogue.find("h200").memory_mib == 143771


@pytest.mark.parametrize(
    ("model", "expected"), [("h100", "h100-sxm5-80gb"), ("h100-sxm-80gb", "h100-sxm5-80gb"), ("l40", "l40s-48gb")]
)
def test_unknown_or_ambiguous_names_suggest_candidates(model: str, expected: str) -> None:
    with pytest.raises(catalogue.UnknownBoard) as caught:
        catalogue.find(model)
    assert expected in caught.value.suggestions


def test_product_label_is_recognised_with_sharing_and_mig_suffixes() -> None:
    for product in (
        "NVIDIA-H100-80GB-HBM3",
        "NVIDIA-H100-80GB-HBM3-SHARED",
        "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb-SHARED",
    ):
        board = catalogue.by_product(product)
        assert board is not None
        assert board.model == "h100-sxm5-80gb"
    assert catalogue.by_product("NVIDIA-H100-80GB-HBM3X") is None


def test_every_board_is_consistent() -> None:
    for name, board in catalogue.BOARDS.items():
        assert board.model == name
        assert board.mig_slices in (0, 4, 7)
        assert catalogue.by_product(board.product) is board
        labels = catalogue.node_labels(board, 8)
        assert labels["nvidia.com/gpu.count"] == "8"
        assert all(len(value) <= 63 for value in labels.values())
