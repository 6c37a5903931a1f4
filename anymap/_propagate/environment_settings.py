"""What travels of the environment of a call: the settings for it, in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from anymap._config.layers import Config


class EnvironmentSettings(NamedTuple):
    """What workers take over of the caller's environment, and give back. The settings of these names say more."""

    logs: str = "forward"
    output: str = "auto"
    output_prefix: str = ""
    context: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config) -> EnvironmentSettings:
        return cls(*map(config.value, cls._fields))
