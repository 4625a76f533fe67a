"""A callback of tests that train."""

import lightning as L


class Saves(L.Callback):
    """Writes a checkpoint after some steps, as a run does that may be killed."""

    def __init__(self, steps, path):
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
