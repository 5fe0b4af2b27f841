"""The environment of a function, read once. A function is given only the names it needs."""

import os
from functools import cache

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    stage: str = "dev"
    event_bus: str = ""
    metering_bucket: str = ""
    clickhouse_dsn: str = ""
    secrets_key_id: str = ""
    user_pool_id: str = ""
    simulate_arn: str = ""
    recommend_arn: str = ""
    register_cluster_arn: str = ""
    deploy_model_arn: str = ""
    delete_deployment_arn: str = ""
    sleep_deployment_arn: str = ""
    wake_deployment_arn: str = ""

    def state_machine(self, kind: str) -> str:
        """ARN of the state machine that runs ``kind``; LookupError when this function may not start it."""
        arn: str = getattr(self, f"{kind}_arn", "")
        if not arn:
            raise LookupError(f"no state machine for runs of kind {kind!r} in this function's environment")
        return arn


@cache
def settings() -> Settings:
    return Settings()


def table_name(domain: str) -> str:
    """Physical table of a domain: its variable, or the name that the data stack gives it."""
    return os.environ.get(f"{domain.upper()}_TABLE") or f"foundry-{os.environ.get('STAGE', 'dev')}-{domain}"
