"""From settings to the stream of operations that both machines run."""

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from pagetide.machine.config import RunConfig
from pagetide.units import format_size
from pagetide.workload.burst import burst
from pagetide.workload.churn import churn
from pagetide.workload.database import database
from pagetide.workload.day import day
from pagetide.workload.mix import Mix, parse_mix
from pagetide.workload.small import small
from pagetide.workload.stream import Stream, StreamError
from pagetide.workload.stream_file import load_stream
from pagetide.workload.web import web


def make_stream(config: RunConfig) -> Stream:
    """The stream that these settings ask for: a workload's, or one from a file. The same settings give the same.

    Raises:
        StreamError: the file cannot be read, takes more than the guest has, or is over before a fault begins; the
            message is one sentence.
    """
    stream = _WORKLOADS[config.workload](config) if config.stream is None else _load(config, Path(config.stream))
    for fault in config.parsed_faults:
        if fault.start_s > stream.end_s:
            raise StreamError(
                f"the workload's clock ends at {stream.end_s:g} s, before the fault {fault.kind} begins at "
                f"{fault.start_s:g} s"
            )
    return stream


def _load(config: RunConfig, path: Path) -> Stream:
    stream = load_stream(path)
    if stream.vcpus > config.vcpus:
        raise StreamError(f"the stream in {path} takes {stream.vcpus} vCPUs, and the guest has {config.vcpus}")
    if stream.peak_bytes > config.ram_bytes:
        raise StreamError(
            f"the stream in {path} holds up to {format_size(stream.peak_bytes)}, "
            f"and the guest has {format_size(config.ram_bytes)}"
        )
    return stream


class _Common(TypedDict):
    """What every workload asks for."""

    vcpus: int
    mix: Mix
    seed: int


def _common(config: RunConfig) -> _Common:
    return {"vcpus": config.vcpus, "mix": parse_mix(config.mix), "seed": config.seed}


def _burst(config: RunConfig) -> Stream:
    return burst(
        eat_bytes=_share_bytes(config),
        bursts=config.bursts,
        hold_s=config.hold_s,
        rest_s=config.rest_s,
        **_common(config),
    )


def _web(config: RunConfig) -> Stream:
    return web(
        share_bytes=_share_bytes(config),
        rate_per_s=config.rate_per_s,
        duration_s=config.duration_s,
        **_common(config),
    )


def _database(config: RunConfig) -> Stream:
    return database(
        share_bytes=_share_bytes(config),
        duration_s=config.duration_s,
        **_common(config),
    )


def _churn(config: RunConfig) -> Stream:
    return churn(
        share_bytes=_share_bytes(config),
        rate_per_s=config.rate_per_s,
        duration_s=config.duration_s,
        **_common(config),
    )


def _small(config: RunConfig) -> Stream:
    return small(
        ram_bytes=config.ram_bytes,
        share_bytes=_share_bytes(config),
        rate_per_s=config.rate_per_s,
        duration_s=config.duration_s,
        **_common(config),
    )


def _day(config: RunConfig) -> Stream:
    return day(
        eat_bytes=_share_bytes(config),
        bursts=config.bursts,
        hold_s=config.hold_s,
        rate_per_s=config.rate_per_s,
        duration_s=config.duration_s,
        **_common(config),
    )


def _share_bytes(config: RunConfig) -> int:
    return int(config.ram_bytes * config.eat_share)


_WORKLOADS: dict[str, Callable[[RunConfig], Stream]] = {
    "burst": _burst,
    "web": _web,
    "database": _database,
    "churn": _churn,
    "small": _small,
    "day": _day,
}
