"""Settings of VARSR's training."""

from dataclasses import dataclass

from nsarm_cli.training.config import RunConfig


@dataclass(frozen=True)
class VarsrStageConfig(RunConfig):
    """Training of VARSR's transformer, prefix encoder and refiner (arXiv 2501.18993).

    Attributes:
        base_from: folder of a model of classes (the authors' first stage) whose transformer,
            labels, refiner and tokenizer replace those of `model`; "" keeps them.
        tokenizer_from: model folder whose tokenizer replaces all others; "" keeps it.
        negatives: probability that a picture of a batch is one of poor quality, from
            `--negatives`; the model learns them under a label of their own, from which it
            is led away when it is used.
        refiner: weight of the refiner's loss.
        drop_path: share of samples that leave out both branches of the last block in training;
            it rises evenly from 0 at the first block.
    """

    model: str = "varsr"
    degradation: str = "realesrgan-mild"
    base_from: str = ""
    tokenizer_from: str = ""
    negatives: float = 0.0
    refiner: float = 2.0
    drop_path: float = 0.0

    @property
    def poor_share(self) -> float:
        """Probability that a picture of a batch is one of poor quality."""
        return self.negatives
