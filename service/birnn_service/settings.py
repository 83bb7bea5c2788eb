"""The server's settings: one typed model, each field a flag, a BIRNN_* variable or a TOML key."""

from functools import cached_property

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from birnn_service.engine_settings import EngineSettings
from birnn_service.limit_settings import LimitSettings
from birnn_service.memory import available_memory
from birnn_service.model_settings import ModelSettings
from birnn_service.network_settings import NetworkSettings
from birnn_service.observe_settings import ObserveSettings
from birnn_service.setting_types import ENV_PREFIX
from birnn_service.sources.options import StoreOptions


# Fields come in the order of the help text, which is that of the bases from the last to the first.
class Settings(ObserveSettings, LimitSettings, EngineSettings, NetworkSettings, ModelSettings, BaseSettings):
    """The settings of `birnn serve`. A flag wins over a BIRNN_* variable, which wins over the TOML file."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read variables only; flags and the TOML file are merged by `settings_reader.load_settings`."""
        return (init_settings, env_settings)

    @cached_property
    def memory_bytes(self) -> int:
        """Memory that the server may take, front-ends included."""
        return self.memory_mib << 20 if self.memory_mib else available_memory()

    @property
    def store_options(self) -> StoreOptions:
        """What bounds the fetching of bundles."""
        return StoreOptions(self.cache_dir, self.max_bundle_mib << 20, self.source_stall_seconds, self.source_seconds)

    @property
    def takes_orders(self) -> bool:
        """Whether callers may order versions to be loaded and unloaded."""
        if self.admin is None:
            return self.asks_for_tokens or self.grpc_address.is_local
        return self.admin

    @property
    def load_memory_bytes(self) -> int:
        """Most memory of the process that tries versions."""
        return max(self.memory_bytes // 2, 1 << 30) if self.load_memory_mib is None else self.load_memory_mib << 20

    @property
    def process_memory_bytes(self) -> int:
        """Memory that each process that takes calls may take."""
        return self.memory_bytes // max(1, self.frontends)

    @property
    def call_memory_bytes(self) -> int:
        """Memory for the calls under way in each process that takes calls."""
        return self.process_memory_bytes // 2

    @cached_property
    def max_reply_bytes(self) -> int:
        """Largest reply; by default one that several callers can have at once. Every call asks for it."""
        if self.max_reply_mib:
            return self.max_reply_mib << 20
        return min(self.memory_bytes // 16, self.call_memory_bytes // 4, 1 << 30)
