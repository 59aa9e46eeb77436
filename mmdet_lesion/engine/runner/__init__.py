from .resumable_loop import ResumableIterBasedTrainLoop

__all__ = ["ResumableIterBasedTrainLoop"]
