"""The whole configuration of one appliance: its virtual services, its workers, its log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, Strict

from lbfast.model.addresses import ListenAddress
from lbfast.model.duration_types import PositiveDuration
from lbfast.model.health_check import SETTINGS, Port
from lbfast.model.pair import HaSettings
from lbfast.model.service import VirtualService
from lbfast.model.upkeep import AlertSettings, BackupSettings, GraphSettings
from lbfast.model.values import written
from lbfast.model.words import FilePath, GroupName, UserName

HTTPS_PORT = 9443
HTTP_PORT = 9080
LOCAL_KEYS = ("workers", "pin_workers", "log", "graphs", "web")
"""Of a box, not of the pair: a commit of the peer leaves them as they are."""

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


class ControlSettings(BaseModel):
    """Who may use the control socket, and so the command line; root and lbfast's own user always may."""

    model_config = SETTINGS

    group: GroupName | None = Field(
        default=None, description='Group that may use every verb. Default: "lbfast", if there is such a group.'
    )
    report_group: GroupName | None = Field(
        default=None,
        description='Group that may look but change nothing. Default: "lbfast-report", if there is such a group.',
    )


class WebSettings(BaseModel):
    """The web interface. Without this table there is none."""

    model_config = SETTINGS

    address: ListenAddress = Field(
        default="0.0.0.0",
        description='Address that browsers reach. "0.0.0.0" and "::" are every address of their family.',
    )
    port: Port | None = Field(default=None, description="Its port. Default: 9443 with TLS, 9080 without.")
    tls: bool = Field(
        default=True, description="HTTPS. false: plain HTTP, with passwords readable by whoever is on the way."
    )
    certificate: FilePath | None = Field(
        default=None,
        description="PEM file with the certificate and its chain. Default: the one uploaded in the web interface, else "
        "a self-signed one that is made at the first start.",
    )
    key: FilePath | None = Field(
        default=None, description="PEM file with the key of certificate. Default: it is in the same file."
    )

    @property
    def port_number(self) -> int:
        """The port that is listened on."""
        return self.port or (HTTPS_PORT if self.tls else HTTP_PORT)


class Config(BaseModel):
    """One configuration file."""

    model_config = SETTINGS

    workers: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None, description="Worker processes. Default: one per core."
    )
    pin_workers: bool = Field(default=True, description="Each worker stays on its own core.")
    user: UserName | None = Field(
        default=None,
        description="User that workers, health and control become when lbfast is started by root. "
        'Default: "lbfast" if there is such a user, else "nobody".',
    )
    control: ControlSettings = Field(default=ControlSettings(), description="Who may use the control socket.")
    log: LogSettings = Field(default=LogSettings(), description="Records of connections.")
    ha: HaSettings = Field(default=HaSettings(), description="The clustered pair.")
    web: WebSettings | None = Field(default=None, description="The web interface. Default: none.")
    alerts: AlertSettings = Field(default=AlertSettings(), description="Who is told when something is wrong.")
    backup: BackupSettings = Field(default=BackupSettings(), description="Backups on schedule.")
    graphs: GraphSettings = Field(default=GraphSettings(), description="How far back the graphs reach.")
    virtual_services: Annotated[tuple[VirtualService, ...], Strict(False)] = Field(
        default=(),
        alias="virtual_service",
        description="What clients reach. A file without any is refused, unless it has a [web] table, where the first "
        "can be made, or says `virtual_service = []`.",
    )

    def service(self, label: str) -> VirtualService | None:
        """The virtual service of that label."""
        return next((service for service in self.virtual_services if service.label == label), None)
