"""From settings to what both machines run: operations, all of them as a stream, or made when they are wanted."""

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
from pagetide.workload.plan import Plan
from pagetide.workload.small import small
from pagetide.workload.stream import Stream, StreamError, Work
from pagetide.workload.stream_file import load_stream
from pagetide.workload.web import web


def make_stream(config: RunConfig) -> Stream:
    """The same as `make_work`, as a stream."""
    return make_work(config).whole()


def make_work(config: RunConfig) -> Work:
    """What these settings ask for: a workload, or a stream from a file. The same settings give the same.

    Raises:
        StreamError: the file cannot be read, takes more than the guest has, or is over before a fault begins; the
            message is one sentence.
    """
    work: Work = _WORKLOADS[config.workload](config) if config.stream is None else _load(config, Path(config.stream))
    for fault in config.parsed_faults:
        if fault.start_s > work.end_s:
            raise StreamError(
                f"the workload's clock ends at {work.end_s:g} s, before the fault {fault.kind} begins at "
                f"{fault.start_s:g} s"
            )
    return work


def has_migratetypes(config: RunConfig, work: Work) -> bool:
    """Whether a guest's zone has free lists by migratetype."""
    if config.migratetypes is not None:
        return config.migratetypes
    return work.has_migratetypes


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


def _burst(config: RunConfig) -> Plan:
    return burst(
        eat_bytes=_share_bytes(config),
        bursts=config.bursts,
        hold_s=config.hold_s,
        rest_s=config.rest_s,
        **_common(config),
    )


def _web(config: RunConfig) -> Plan:
    return web(
        share_bytes=_share_bytes(config),
        rate_per_s=config.rate_per_s,
        duration_s=config.duration_s,
        **_common(config),
    )


def _database(config: RunConfig) -> Plan:
    return database(
        share_bytes=_share_bytes(config),
        duration_s=config.duration_s,
        **_common(config),
    )


def _churn(config: RunConfig) -> Plan:
    return churn(
        share_bytes=_share_bytes(config),
        rate_per_s=config.rate_per_s,
        duration_s=config.duration_s,
        **_common(config),
    )


def _small(config: RunConfig) -> Plan:
    return small(
        ram_bytes=config.ram_bytes,
        share_bytes=_share_bytes(config),
        rate_per_s=config.rate_per_s,
        duration_s=config.duration_s,
        **_common(config),
    )


def _day(config: RunConfig) -> Plan:
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


_WORKLOADS: dict[str, Callable[[RunConfig], Plan]] = {
    "burst": _burst,
    "web": _web,
    "database": _database,
    "churn": _churn,
    "small": _small,
    "day": _day,
}
