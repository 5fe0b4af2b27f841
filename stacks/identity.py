"""Who people are: one Cognito user pool, a group per role, a hosted login, and two public clients."""

import aws_cdk as cdk
from aws_cdk import aws_cognito as cognito
from constructs import Construct

from stacks.config import Config
from stacks.constructs.checks import accept
from stacks.constructs.stack import FoundryStack

ROLES = ("admin", "developer", "operator", "auditor", "client")
CLI_CALLBACK = "http://localhost:4711/callback"


class IdentityStack(FoundryStack):
    def __init__(self, scope: Construct, config: Config) -> None:
        super().__init__(scope, "identity", config)
        self.pool = self._pool()
        accept(self.pool, "COG2", "A second factor (TOTP) is each person's choice; an operator can make it mandatory.")
        accept(self.pool, "COG8", "The Plus plan is billed per person and month.")
        for role in ROLES:
            cognito.CfnUserPoolGroup(self, f"Group-{role}", user_pool_id=self.pool.user_pool_id, group_name=role)
        domain = cognito.CognitoDomainOptions(domain_prefix=f"{config.name('')}{cdk.Aws.ACCOUNT_ID}")
        self.domain = self.pool.add_domain("Domain", cognito_domain=domain)
        self.web = self._client("web", list(config.web_origins), cognito.AuthFlow(user_srp=True))
        # The CLI logs people in through the browser; with a password where there is none (scripts, offline).
        self.cli = self._client("cli", [CLI_CALLBACK], cognito.AuthFlow(user_password=True, user_srp=True))
        self.show("UserPoolId", self.pool.user_pool_id)
        self.show("WebClientId", self.web.user_pool_client_id)
        self.show("CliClientId", self.cli.user_pool_client_id)
        self.show("LoginUrl", self.domain.base_url())

    @property
    def issuer(self) -> str:
        return f"https://cognito-idp.{cdk.Aws.REGION}.{cdk.Aws.URL_SUFFIX}/{self.pool.user_pool_id}"

    def _pool(self) -> cognito.UserPool:
        return cognito.UserPool(
            self, "Pool", user_pool_name=self.config.name("people"), removal_policy=self.removal,
            deletion_protection=not self.config.disposable, feature_plan=cognito.FeaturePlan.ESSENTIALS,
            self_sign_up_enabled=False, sign_in_aliases=cognito.SignInAliases(email=True), sign_in_case_sensitive=False,
            auto_verify=cognito.AutoVerifiedAttrs(email=True), account_recovery=cognito.AccountRecovery.EMAIL_ONLY,
            mfa=cognito.Mfa.OPTIONAL, mfa_second_factor=cognito.MfaSecondFactor(sms=False, otp=True),
            password_policy=cognito.PasswordPolicy(
                min_length=12, require_digits=True, require_lowercase=True, require_symbols=True,
                require_uppercase=True, temp_password_validity=cdk.Duration.days(3),
            ),
        )  # fmt: skip

    def _client(self, name: str, callbacks: list[str], flows: cognito.AuthFlow) -> cognito.UserPoolClient:
        """A client without a secret: authorization code with PKCE, which Cognito demands of public clients."""
        return self.pool.add_client(
            f"Client-{name}", user_pool_client_name=self.config.name(name), generate_secret=False, auth_flows=flows,
            o_auth=cognito.OAuthSettings(
                flows=cognito.OAuthFlows(authorization_code_grant=True), callback_urls=callbacks, logout_urls=callbacks,
                scopes=[cognito.OAuthScope.OPENID, cognito.OAuthScope.EMAIL, cognito.OAuthScope.PROFILE],
            ),
            supported_identity_providers=[cognito.UserPoolClientIdentityProvider.COGNITO],
            prevent_user_existence_errors=True, enable_token_revocation=True,
            access_token_validity=cdk.Duration.hours(1), id_token_validity=cdk.Duration.hours(1),
            refresh_token_validity=cdk.Duration.days(30),
        )  # fmt: skip
