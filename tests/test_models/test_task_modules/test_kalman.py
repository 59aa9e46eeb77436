import numpy as np
from mmdet.models.task_modules.tracking import KalmanFilter

from mmdet_lesion.models.task_modules.kalman import KalmanState


def measure(box):
    x1, y1, x2, y2 = box
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / (y2 - y1), y2 - y1])


def boxes(rng, n):
    low = rng.uniform(0, 100, (n, 2))
    return np.hstack((low, low + rng.uniform(3, 60, (n, 2))))


def check(state, filters):
    for i, (mean, covariance) in enumerate(filters):
        np.testing.assert_allclose(
            np.r_[state.mean[i], state.velocity[i]], mean, rtol=1e-8, atol=1e-8
        )
        full = np.zeros((8, 8))
        index = np.arange(4)
        full[index, index] = state.var_mean[i]
        full[index, index + 4] = full[index + 4, index] = state.covar[i]
        full[index + 4, index + 4] = state.var_velocity[i]
        np.testing.assert_allclose(full, covariance, rtol=1e-8, atol=1e-8)


def test_equals_mmdets_kalman_filter():
    rng = np.random.default_rng(0)
    peer = KalmanFilter()
    start = boxes(rng, 5)
    state = KalmanState.start(start)
    filters = [peer.initiate(measure(box)) for box in start]
    check(state, filters)
    for step in range(12):
        state = state.predicted()
        filters = [peer.predict(*pair) for pair in filters]
        check(state, filters)
        if step % 3:  # every third slice is missed
            seen = start + step + rng.normal(0, 1, start.shape)
            state = state.updated(seen)
            filters = [
                peer.update(*pair, measure(box)) for pair, box in zip(filters, seen, strict=True)
            ]
            check(state, filters)


def test_boxes_and_indexing():
    start = boxes(np.random.default_rng(1), 4)
    state = KalmanState.start(start)
    np.testing.assert_allclose(state.boxes(), start)
    np.testing.assert_allclose(state[np.array([2, 0])].boxes(), start[[2, 0]])
    np.testing.assert_allclose(state[:1].joined(state[2:]).boxes(), start[[0, 2, 3]])


def test_degenerate_boxes_give_finite_values():
    state = KalmanState.start(np.array([[5.0, 5, 5, 5], [5, 5, 4, 9]])).predicted()
    assert np.isfinite(state.updated(np.array([[5.0, 5, 5, 5], [5, 5, 4, 9]])).boxes()).all()
