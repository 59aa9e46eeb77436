import pytest

from mmdet_lesion.synthesis import PhantomConfig, make_deeplesion

TINY = PhantomConfig(
    volumes=7,
    seed=5,
    size=72,
    slices=(8, 12),
    lesions=(2, 4),
    diameter=(14.0, 60.0),
    split=(3, 2, 2),
)


@pytest.fixture(scope="session")
def tiny_config() -> PhantomConfig:
    return TINY


@pytest.fixture(scope="session")
def tiny_phantoms(tmp_path_factory):
    """A small dataset, and the summary that ``make_deeplesion`` returns."""
    out = tmp_path_factory.mktemp("phantoms") / "raw"
    return out, make_deeplesion(out, TINY, progress=False)
