"""The T5 encoder that turns prompts into features, through transformers.

Letters: b prompts, m tokens of a prompt, x width of a token.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from nsarm_cli.errors import WeightsError
from nsarm_cli.text.features import LONGEST

BATCH = 32
"""Prompts encoded at once on a GPU."""

_log = logging.getLogger(__name__)


class TextEncoder:
    """Encodes prompts; between calls it waits in main memory unless it is to stay.

    Args:
        model: a `T5EncoderModel` on the processor.
        tokenizer: its fast tokenizer.
        device: where it computes.
        resident: stay on the device between calls, as training wants it.
    """

    def __init__(
        self, model: Any, tokenizer: Any, device: torch.device, *, resident: bool = False
    ) -> None:
        self._resident = resident
        self._model = model
        self._tokenizer = tokenizer
        self._device = device

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        *,
        resident: bool = False,
        remedy: str = "give the folder of a T5 encoder with its tokenizer",
    ) -> "TextEncoder":
        """Load an encoder and its tokenizer from a folder, never from the network.

        Args:
            folder: as transformers writes it, with `config.json`, safetensors and
                `tokenizer.json`.
            device: where it will compute.
            dtype: of its weights. Below float32, the second matrix of each feed-forward and
                the last norm stay float32: what they add to the residual stream is large.
                float16 is too narrow for T5, so bfloat16 takes its place.
            resident: stay on the device between calls.
            remedy: what a user may do when there is no encoder, for the error.

        Raises:
            WeightsError: the folder is missing or damaged.
        """
        if not (folder / "config.json").is_file():
            fault = "has no text encoder" if folder.is_dir() else "there is no such folder"
            raise WeightsError(f"{folder}: {fault}, so prompts cannot be read; {remedy}")
        # Imported here: transformers takes a second, and most runs have no prompt.
        from transformers import AutoTokenizer, T5EncoderModel  # noqa: PLC0415

        class Encoder(T5EncoderModel):  # type: ignore[no-untyped-call]
            _keep_in_fp32_modules_strict = {"wo", "final_layer_norm"}  # noqa: RUF012

        stored = torch.bfloat16 if dtype == torch.float16 else dtype
        try:
            loaded: Any = Encoder.from_pretrained(
                folder,
                dtype=stored,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{folder}: cannot be read as a T5 text encoder ({error}); get its files again"
            ) from error
        model, report = loaded
        # transformers fills what is missing with chance and carries on.
        if lost := sorted(report["missing_keys"]):
            raise WeightsError(
                f"{folder}: lacks {len(lost)} tensors of the text encoder, such as {lost[0]}; "
                "get its files again"
            )
        frozen = model.requires_grad_(requires_grad=False).eval()
        return cls(frozen, tokenizer, device, resident=resident)

    @property
    def width(self) -> int:
        """Numbers (x) in the features of one token."""
        return int(self._model.config.d_model)

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """Encode prompts.

        A prompt has no padding when it is alone, and as little as possible in a batch; its
        features depend on its own tokens only. On a processor, where a batch is no quicker,
        prompts go one by one, so that their last digits do not depend on each other either.

        Args:
            prompts: any text; an empty one has one token, the end. Tokens beyond the first
                `LONGEST` are left out, with a warning.

        Returns:
            For each prompt "m x", float32, on the processor.
        """
        rows = self._tokens(prompts)
        if self._device.type == "cpu":
            return [self._features([row])[0] for row in rows]
        try:
            self._model.to(self._device)
            # Prompts of like length share a batch, so little of it is padding.
            order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
            found: dict[int, Tensor] = {}
            for start in range(0, len(order), BATCH):
                part = order[start : start + BATCH]
                found.update(zip(part, self._features([rows[i] for i in part]), strict=True))
            return [found[i] for i in range(len(rows))]
        except torch.OutOfMemoryError:
            _log.warning(
                "the text encoder does not fit on %s: it runs on the processor", self._device
            )
            self._model.to("cpu")
            return [self._features([row])[0] for row in rows]
        finally:
            if not self._resident:
                self._model.to("cpu")
            if self._device.type == "cuda" and not self._resident:
                torch.cuda.empty_cache()  # else the allocator keeps what the transformer needs

    def _tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        rows: list[list[int]] = []
        for prompt in prompts:
            (whole,) = self._tokenizer([prompt])["input_ids"]
            kept = whole
            if len(whole) > LONGEST:
                kept = [*whole[: LONGEST - 1], whole[-1]]  # the last is the end of the text
                _log.warning(
                    "a prompt has %d tokens; the last %d are left out (it begins %r)",
                    len(whole),
                    len(whole) - LONGEST,
                    prompt[:40],
                )
            rows.append(kept)
        return rows

    def _features(self, rows: Sequence[list[int]]) -> list[Tensor]:
        """Features of some prompts in one batch."""
        device = next(self._model.parameters()).device
        longest = max(map(len, rows))
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        hidden = self._model(
            input_ids=tokens.to(device), attention_mask=mask.to(device)
        ).last_hidden_state
        return [hidden[i, : len(row)].float().cpu() for i, row in enumerate(rows)]
