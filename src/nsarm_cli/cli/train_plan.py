"""`nsarm train STAGE --dry-run`: what a run would take."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from nsarm_cli.cli import console, train_text
from nsarm_cli.cli.options import card_size

if TYPE_CHECKING:
    import torch

    from nsarm_cli.training.config import RunConfig
    from nsarm_cli.training.plan import Plan
    from nsarm_cli.weights.folder import AnyConfig

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only tell memory and operations of the run, and time three steps if they fit here.",
    ),
]
WorldSize = Annotated[
    int | None,
    typer.Option(min=1, help="With --dry-run: number of processes.", metavar="N", show_default="1"),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="With --dry-run: memory of each device, such as 80GB, instead of that of this one.",
        metavar="SIZE",
        callback=card_size,
    ),
]

_GIB = 2**30
_USABLE = 0.9
"""Of the free memory: what the allocator cannot use and the device's own program are not ours."""


def is_plan(dry_run: bool, world: int | None, memory: str | None) -> bool:
    """Whether only a plan is asked for; options of plans are refused elsewhere."""
    for option, value in (("--world-size", world), ("--memory", memory)):
        if value is not None and not dry_run:
            raise typer.BadParameter("it is for --dry-run alone.", param_hint=option)
    return dry_run


def show_plan(
    settings: "RunConfig", world: int, memory: str | None, device_name: str, threads: int | None
) -> None:
    """Print parameters, memory and operations on stdout, then the time of real steps if they fit.

    Args:
        settings: of the run.
        world: number of processes.
        memory: size of each process's device, such as "80GB"; None asks the device at hand.
        device_name: for the real steps.
        threads: of a processor in the real steps; None takes PyTorch's choice.

    Raises:
        ConfigError: the settings do not fit together.
        DeviceError: no such device.
    """
    import torch

    from nsarm_cli.memory.device import card_of, memory_of
    from nsarm_cli.runtime import choose_device
    from nsarm_cli.training.plan import POLICIES, make_plan
    from nsarm_cli.training.runner import prepare_stage, starting_config_of

    if threads is not None:
        torch.set_num_threads(threads)
    device, reason = choose_device(device_name)
    limit = memory_of(device).total if memory is None else card_of(memory).total
    model = starting_config_of(settings)
    with console.progress_bar(len(POLICIES)) as bar:
        plan = make_plan(
            settings,
            model,
            prepare_stage,
            world,
            watch=lambda done, policy: bar.begin(done, f'rehearsing recompute = "{policy}"'),
        )
    _say_plan(plan, settings, model)
    console.result_table(_table(plan))
    _say_verdict(plan, settings, limit)
    _try(plan, settings, model, device, reason)


def _say_plan(plan: "Plan", settings: "RunConfig", model: "AnyConfig") -> None:
    passes = f"{plan.passes} passes" if plan.passes > 1 else "1 pass"
    crops = f"{plan.samples} crops" if plan.samples > 1 else "1 crop"
    console.result(
        f"{model.name}: {plan.learned:,} parameters learn, {plan.other:,} stay\n"
        f"batch {settings.batch}: {_processes(plan.world)}, each with {passes} of {crops} per "
        f"update\n"
        f"one update: {plan.flops / 1e12:,.3g} TFLOP, without what is computed twice\n"
        f"one checkpoint: {_gib(plan.checkpoint)} GiB on the disk, {settings.keep} are kept"
    )
    if plan.world > 1:
        console.result(
            f"each process receives {_gib(plan.received)} GiB from the others per update"
        )


def _table(plan: "Plan") -> Table:
    table = Table(title="memory of one process, GiB", title_justify="left")
    table.add_column("recompute")
    for name in plan.policies:
        table.add_column(name, justify="right")
    state = plan.state
    rows = {
        "trained weights": state.weights,
        "other weights": state.frozen,
        "gradients": state.gradients,
        "optimiser": state.optimiser,
        "average": state.average,
        "gathered": plan.gathered,
    }
    for name, size in rows.items():
        table.add_row(name, *[_gib(size)] * len(plan.policies))
    table.add_row("activations", *[_gib(p.activations) for p in plan.policies.values()])
    table.add_section()
    table.add_row("worst moment", *[_gib(p.total) for p in plan.policies.values()])
    table.add_row("a validation", *[_gib(plan.validation)] * len(plan.policies))
    table.add_row("computed twice", *[f"{p.again:.0%}" for p in plan.policies.values()])
    return table


def _say_verdict(plan: "Plan", settings: "RunConfig", limit: int) -> None:
    need = plan.policies[settings.recompute].total
    usable = _USABLE * limit
    fits = need <= usable
    console.result(
        f'recompute = "{settings.recompute}" of the settings needs {_gib(need)} GiB and '
        f"{'fits' if fits else 'does not fit'} into {_gib(limit)} GiB, of which "
        f"{_USABLE:.0%} count as usable"
    )
    if plan.validation > usable:
        waits = "" if settings.offload else ", set offload = true"
        console.result(
            f"a validation needs {_gib(plan.validation)} GiB and does not fit; leave --val out"
            f"{waits}, or raise accumulate"
        )
    if fits:
        return
    for policy, passing in plan.policies.items():
        for parts in range(1, plan.samples + 1):
            spared = passing.activations * (1 - 1 / parts)
            if plan.samples % parts == 0 and passing.total - spared <= usable:
                accumulate = plan.passes * parts
                console.result(
                    f'recompute = "{policy}" and accumulate = {accumulate} would need about '
                    f"{_gib(passing.total - spared)} GiB"
                )
                return
    console.result(
        "no policy and no accumulate fits; use more processes, offload, or lora "
        "(the preset nsarm-8b-lora-stage2)"
    )


def _try(
    plan: "Plan",
    settings: "RunConfig",
    model: "AnyConfig",
    device: "torch.device",
    reason: str,
) -> None:
    """Time three steps of one process here, if they fit."""
    import dataclasses

    from nsarm_cli.memory.device import memory_of
    from nsarm_cli.runtime import PRECISIONS
    from nsarm_cli.training.pace import peak_flops
    from nsarm_cli.training.plan import make_plan
    from nsarm_cli.training.runner import fresh_model, prepare_stage
    from nsarm_cli.training.trial import STEPS, try_steps

    share, free = plan.passes * plan.samples, memory_of(device).free
    need = plan.state.frozen + plan.world * plan.state.split
    if plan.world == 1:
        need = plan.policies[settings.recompute].total
    elif need <= _USABLE * free:
        lone = dataclasses.replace(settings, batch=share)
        alone = make_plan(lone, model, prepare_stage, 1, policies=(settings.recompute,))
        need = alone.policies[settings.recompute].total
    if need > _USABLE * free:
        console.result(
            f"no step was timed: one process alone needs {_gib(need)} GiB or more, and "
            f"{device} has {_gib(free)} GiB free"
        )
        return
    if settings.attention == "flex" and device.type != "cuda":
        console.result('no step was timed: attention = "flex" learns on CUDA GPUs alone')
        return
    console.say(f"timing {STEPS} steps of one process on {device} ({reason})")
    trial = try_steps(settings, fresh_model(model), prepare_stage, device, share)
    rate = plan.flops / plan.world / trial.seconds
    mfu = rate / peak_flops(device, PRECISIONS[settings.precision])
    console.result(
        f"one update of one process took {trial.seconds:.3g} s on {device}: "
        f"{share / trial.seconds:.3g} images/s, {rate / 1e12:.3g} TFLOP/s, MFU {mfu:.0%}; "
        f"{settings.steps} updates take {train_text.duration(settings.steps * trial.seconds)}"
    )
    if trial.memory is not None:
        console.result(f"it used {_gib(trial.memory)} GiB at most")


def _processes(count: int) -> str:
    return f"{count} processes" if count > 1 else "1 process"


def _gib(size: float) -> str:
    return f"{size / _GIB:,.3g}" if size < 100 * _GIB else f"{size / _GIB:,.0f}"
