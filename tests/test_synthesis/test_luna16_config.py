import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.synthesis import Luna16PhantomConfig


@pytest.mark.parametrize(
    ('settings', 'message'),
    [(dict(volumes=0), 'volumes is 0; expected at least 1'),
     (dict(seed=-1), 'seed is -1; expected a number of at least 0'),
     (dict(size=16), 'expected at least 32'),
     (dict(subsolid=1.5), r'subsolid is 1.5; expected a fraction in \[0, 1\]'),
     (dict(pixel=(0.0, 0.9)), 'pixel is 0.0 and 0.9; expected 0.1 <= lowest <= highest'),
     (dict(nodules=(4, 2)), 'nodules is 4 and 2; expected 0 <= lowest <= highest'),
     (dict(vessels=9), 'expected 0 to 8 generations'),
     (dict(noise=-1.0), 'expected at least 0 HU')],
)  # fmt: skip
def test_invalid_settings(settings, message):
    with pytest.raises(InputError, match=message):
        Luna16PhantomConfig(**{"volumes": 1, **settings})
