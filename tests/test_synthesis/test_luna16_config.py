import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.synthesis import Luna16PhantomConfig


@pytest.mark.parametrize(
    ('settings', 'message'),
    [(dict(volumes=0), 'volumes: expected at least 1, found 0'),
     (dict(seed=-1), 'seed: expected a number of at least 0'),
     (dict(size=16), 'size: expected at least 32'),
     (dict(subsolid=1.5), r'subsolid: expected a fraction in \[0, 1\], found 1.5'),
     (dict(pixel=(0.0, 0.9)), 'pixel: expected 0.1 <= lowest <= highest, found 0.0 and 0.9'),
     (dict(nodules=(4, 2)), 'nodules: expected 0 <= lowest <= highest, found 4 and 2'),
     (dict(vessels=9), 'vessels: expected 0 to 8'),
     (dict(noise=-1.0), 'noise: expected at least 0')],
)  # fmt: skip
def test_invalid_settings(settings, message):
    with pytest.raises(InputError, match=message):
        Luna16PhantomConfig(**{"volumes": 1, **settings})
