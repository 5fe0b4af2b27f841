"""The structured logger of a function (JSON lines, no bodies, no secrets)."""

from aws_lambda_powertools import Logger

logger = Logger(service="foundry")
