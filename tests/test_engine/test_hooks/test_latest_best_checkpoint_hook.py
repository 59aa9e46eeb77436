import pytest

from mmdet_lesion.engine.hooks import LatestBestCheckpointHook

from ..toy import toy_runner


@pytest.mark.parametrize(
    "rule, scores, best",
    [("greater", [0.5, 1.0, 1.0, 0.9], 3), ("less", [2.0, 1.0, 1.0, 3.0], 3)],
)
def test_latest_of_equal_results_is_the_best_checkpoint(tmp_path, rule, scores, best):
    runner = toy_runner(tmp_path, [], iters=1)
    runner.train()
    hook = LatestBestCheckpointHook(by_epoch=False, save_best="score", rule=rule)
    hook.before_train(runner)
    for number, score in enumerate(scores, start=1):
        runner.train_loop._iter = number
        hook.after_val_epoch(runner, {"score": score})
    assert [path.name for path in tmp_path.glob("best_*")] == [f"best_score_iter_{best}.pth"]
