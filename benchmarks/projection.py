"""Stage 2 of nsarm-8b on 16, 256 and 4,096 GPUs, on paper.

    python benchmarks/projection.py

Prints the table of docs/scaling.md. Nothing is measured here: operations, parameters and
activations are those that `nsarm train stage2 --config nsarm-8b-stage2 --dry-run` counts, and the
rates of the GPUs and the network are assumptions, named below.
"""

PARAMETERS = 8_375_791_824
FLOPS_PER_CROP = 613.3e12  # with what recompute = "full" does twice
CROPS = 2  # of a GPU and update
STATE = 16  # bytes per parameter: float32 weight, gradient and two moments
REST = (1.74 + 2.2 + 18.0) * 2**30  # bytes: other weights, gathered units, activations
COLLECTIVES = 3 * (40 + 40 + 1)  # blocks, their cross-attention, and the rest; three times each

RATE = 0.5 * 312e12  # FLOP/s: half of what an A100 or A800 does in bf16
NODE_RATES = (200e9, 25e9)  # bytes/s into a machine of 8 GPUs: 8 cards of 200 Gbit/s, or one
HOP = 7e-6  # seconds of a message from a GPU to the next


def main() -> None:
    print(
        "| GPUs | crops | memory, GiB | computes, s | receives, GB | 200 GB/s, s | 25 GB/s, s ",
        end="",
    )
    print("| hops, s | images/s |")
    print("|---:" * 9 + "|")
    for gpus in (16, 256, 4096):
        others = (gpus - 1) / gpus
        memory = (STATE * PARAMETERS / gpus + REST) / 2**30
        compute = CROPS * FLOPS_PER_CROP / RATE
        # Gathered twice in bf16, summed once in float32; a ring brings all of it into each machine.
        received = (2 * 2 + 4) * PARAMETERS * others
        waits = [received / rate for rate in NODE_RATES]
        hops = COLLECTIVES * (gpus - 1) * HOP
        slowest = max(compute, waits[0] + hops)  # both at once, at best
        cells = (
            f"{gpus:,}",
            f"{CROPS * gpus:,}",
            f"{memory:.1f}",
            f"{compute:.1f}",
            f"{received / 1e9:.1f}",
            *(f"{wait:.2f}" for wait in waits),
            f"{hops:.2f}",
            f"{CROPS * gpus / slowest:,.0f}",
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
