"""The whole configuration of one appliance: its virtual services, its workers, its log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, Strict

from lbfast.model.durations import PositiveDuration
from lbfast.model.health_check import SETTINGS
from lbfast.model.pair import HaSettings
from lbfast.model.service import VirtualService
from lbfast.model.values import written
from lbfast.model.words import FilePath

LogTarget = Literal["stdout", "file", "syslog", "journald", "none"]


class LogSettings(BaseModel):
    """Where the open and close records of connections go."""

    model_config = SETTINGS

    target: LogTarget = Field(default="stdout", description="Where records go, one JSON object each.")
    file: FilePath | None = Field(default=None, description='File to append to, when target is "file".')
    rate_limit: int = Field(
        default=1_000,
        ge=0,
        le=10_000_000,
        description="Most records per rate_interval; what is beyond is counted and the count is logged. 0 = no limit.",
    )
    rate_interval: PositiveDuration = Field(default=written("30s"), description="See rate_limit.")


class Config(BaseModel):
    """One configuration file."""

    model_config = SETTINGS

    workers: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None, description="Worker processes. Default: one per core."
    )
    pin_workers: bool = Field(default=True, description="Each worker stays on its own core.")
    log: LogSettings = Field(default=LogSettings(), description="Records of connections.")
    ha: HaSettings = Field(default=HaSettings(), description="The clustered pair.")
    virtual_services: Annotated[tuple[VirtualService, ...], Strict(False)] = Field(
        alias="virtual_service",
        description="What clients reach. A file without any is refused, unless it says `virtual_service = []`.",
    )

    def service(self, label: str) -> VirtualService | None:
        """The virtual service of that label."""
        return next((service for service in self.virtual_services if service.label == label), None)
