"""What gateways serve, read as a whole: consistent, and at least as new as the version that goes with it."""

from dataclasses import dataclass

from foundry_core.table import every

from functions.app.blocking import BlockingRule
from functions.app.schemas import Credential, Key, Project, PublishedEndpoint
from functions.app.store.table import (
    CONFIG,
    AppTable,
    BlockingItem,
    CredentialItem,
    EndpointItem,
    KeyItem,
    ProjectItem,
    VersionItem,
)


@dataclass(frozen=True)
class Version:
    number: int
    stamp: str


@dataclass(frozen=True)
class Config:
    version: Version
    keys: list[tuple[Key, str]]  # with the SHA-256 of the secret
    projects: list[Project]
    endpoints: list[PublishedEndpoint]
    credentials: list[tuple[Credential, dict[str, str]]]  # sealed
    blocking: list[BlockingRule]


def version() -> Version:
    try:
        item = VersionItem.get(CONFIG, "VERSION", consistent_read=True)
        return Version(int(item.version or 0), item.stamp)
    except VersionItem.DoesNotExist:
        return Version(0, "")


def load(of_version: Version) -> Config:
    """``of_version`` was read before: what is changed in between is in the answer, and again in the next version."""
    config = Config(of_version, [], [], [], [], [])
    for item in every(AppTable, CONFIG):
        if isinstance(item, KeyItem):
            config.keys.append((Key(**item.data), item.sha256))
        elif isinstance(item, ProjectItem):
            config.projects.append(Project(**item.data))
        elif isinstance(item, EndpointItem):
            config.endpoints.append(PublishedEndpoint(**item.data))
        elif isinstance(item, CredentialItem):
            config.credentials.append((Credential(**item.data), item.sealed))
        elif isinstance(item, BlockingItem):
            config.blocking.append(BlockingRule(**item.data))
    return config
