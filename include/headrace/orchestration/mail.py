"""Sends mails through the Connection `smtp_default` and supports its CA file."""

from __future__ import annotations

import ssl
from functools import cached_property

from airflow.providers.smtp.hooks.smtp import SmtpHook
from airflow.providers.smtp.notifications.smtp import SmtpNotifier

__all__ = ["MailNotifier"]


class _Hook(SmtpHook):
    """Adds a CA file to Airflow's hook, which trusts only the system's CAs."""

    def _build_ssl_context(self) -> ssl.SSLContext | None:
        ca_file = self.conn.extra_dejson.get("ca_file")
        if not ca_file:
            return super()._build_ssl_context()
        return ssl.create_default_context(cafile=ca_file)


class MailNotifier(SmtpNotifier):
    """Airflow's notifier. ``ca_file`` in the Connection's extra replaces the system's CAs."""

    @cached_property
    def hook(self) -> SmtpHook:
        """Client of the mail server."""
        return _Hook(smtp_conn_id=self.smtp_conn_id, auth_type=self.auth_type)
